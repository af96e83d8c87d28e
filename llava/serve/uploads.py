"""Uploaded images: limits and checks before any pixel is decoded."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from llava.data.images import DAMAGE, load_image, to_rgb
from llava.errors import InputError

FORMATS = ("PNG", "JPEG", "WEBP")
"""Pillow's names of the accepted formats; the content of a file decides, not its name."""


@dataclass(frozen=True)
class UploadLimits:
    """Size limits of an upload."""

    max_bytes: int = 10 * 2**20
    max_pixels: int = 25_000_000

    def __str__(self) -> str:
        return f"PNG, JPEG or WebP, up to {self.max_bytes / 2**20:.4g} MiB and {self.max_pixels / 1e6:g} megapixels"


def local_picture(path: str | os.PathLike[str]) -> Image.Image:
    """An image from the user's own disk as RGB, rotated according to its EXIF orientation.

    Raises:
        InputError: The image cannot be read; the message names the file.
    """
    return _upright(load_image(path))


def uploaded_picture(path: str | os.PathLike[str], folder: str | os.PathLike[str], limits: UploadLimits) -> Image.Image:
    """An uploaded image as RGB, rotated according to its EXIF orientation.

    Args:
        path: Path of the upload, as sent by the client.
        folder: Folder of the uploads; files elsewhere are not opened.
        limits: Limits in bytes and pixels.

    Raises:
        InputError: The path is outside the folder, or the file has another format or is too large, damaged or empty.
            The messages are shown to remote users and contain no path.
    """
    file, root = Path(path).resolve(), Path(folder).resolve()
    if not file.is_relative_to(root) or not file.is_file():
        raise InputError("the picture is not among the uploads; choose a file to upload")
    size = file.stat().st_size
    if size > limits.max_bytes:
        raise InputError(f"the picture has {size / 2**20:.1f} MiB; upload a {limits}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below has a better message
            with Image.open(file, formats=FORMATS) as image:
                pixels = image.width * image.height
                if pixels > limits.max_pixels:
                    raise InputError(
                        f"the picture has {image.width} x {image.height} = {pixels / 1e6:.1f} megapixels; "
                        f"upload a {limits}"
                    )
                return _upright(to_rgb(image))
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"the file is not a picture of a supported format; upload a {limits}") from None
    except DAMAGE as error:
        raise InputError(f"the picture cannot be read, it may be damaged or too large; upload a {limits}") from error


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image)
