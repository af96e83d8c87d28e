"""Pictures that people hand in: what is taken, checked before a pixel is decoded."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from llava.data.images import DAMAGE, load_image, to_rgb
from llava.errors import InputError

FORMATS = ("PNG", "JPEG", "WEBP")
"""Pillow's names of what an upload may be; its content decides, never its file name."""


@dataclass(frozen=True)
class UploadLimits:
    """How large an upload may be."""

    max_bytes: int = 10 * 2**20
    max_pixels: int = 25_000_000

    def __str__(self) -> str:
        return f"PNG, JPEG or WebP, up to {self.max_bytes / 2**20:.4g} MiB and {self.max_pixels / 1e6:g} megapixels"


def local_picture(path: str | os.PathLike[str]) -> Image.Image:
    """A picture of the user's own disk as RGB, turned upright as its camera noted.

    Raises:
        InputError: it cannot be read; the message names the file.
    """
    return _upright(load_image(path))


def uploaded_picture(path: str | os.PathLike[str], folder: str | os.PathLike[str], limits: UploadLimits) -> Image.Image:
    """An uploaded picture as RGB, turned upright as its camera noted.

    Args:
        path: where the client says its upload lies.
        folder: where uploads lie; nothing else is opened.
        limits: bytes and pixels.

    Raises:
        InputError: a place outside the folder, another format, too large, damaged or empty. The messages are for
            people far away and name no path.
    """
    file, root = Path(path).resolve(), Path(folder).resolve()
    if not file.is_relative_to(root) or not file.is_file():
        raise InputError("the picture is not among the uploads; choose a file to upload")
    size = file.stat().st_size
    if size > limits.max_bytes:
        raise InputError(f"the picture has {size / 2**20:.1f} MiB; upload a {limits}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below says it better
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
        raise InputError(f"the file is not a picture of a known kind; upload a {limits}") from None
    except DAMAGE as error:
        raise InputError(f"the picture cannot be read, it may be damaged or too large; upload a {limits}") from error


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image)
