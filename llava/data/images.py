"""Images: from a file to the pixel values for a vision tower."""

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from llava.errors import InputError

if TYPE_CHECKING:
    from llava.model.vision_tower.processors import ImageProcessor

ASPECT_RATIOS = ("pad", "square", None)
"""Supported values of ``image_aspect_ratio``: padding to a square, or the processor's own resizing."""

DAMAGE = (
    *(
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        NotImplementedError,
        TypeError,
        LookupError,
        ArithmeticError,
    ),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
"""Exceptions of Pillow's decoders for files that are damaged, unsupported or decompression bombs."""


def load_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image completely, as RGB.

    Raises:
        InputError: The file does not exist, is not an image, is damaged or truncated, or is so large that Pillow takes
            it for a decompression bomb; the message names the file.
    """
    with _readable(path) as image:
        return to_rgb(image)


def verify_image(path: str | os.PathLike[str]) -> None:
    """Read an image to its end without keeping it; for JPEG this is faster than :func:`load_image`.

    Raises:
        InputError: As for :func:`load_image`.
    """
    with _readable(path) as image:
        if image.format == "JPEG":
            image.draft("RGB", (max(image.width // 8, 1), max(image.height // 8, 1)))
        image.load()


@contextmanager
def _readable(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open an image, and convert exceptions of Pillow while it is read to ``InputError``."""
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise InputError(f"image {os.fspath(path)!r} does not exist") from None
    except UnidentifiedImageError:
        raise InputError(f"image {os.fspath(path)!r} is not in a format that Pillow can read") from None
    except DAMAGE as error:
        raise InputError(f"image {os.fspath(path)!r} cannot be read: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB.

    16-bit grey is scaled to 8 bits (Pillow alone would clip it to white). Transparency is dropped, as in LLaVA.
    """
    if image.mode == "RGB":
        image.load()
        return image.copy() if hasattr(image, "filename") else image
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image, dtype=np.int64), 0, 65535) // 256
        image = Image.fromarray(grey.astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def expand_to_square(image: Image.Image, fill: Sequence[int]) -> Image.Image:
    """Pad the shorter side equally on both ends with the colour ``fill`` (8-bit RGB) to make the image square."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new(image.mode, (side, side), tuple(fill))
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def preprocess_image(image: Image.Image, processor: "ImageProcessor", aspect_ratio: str | None) -> torch.Tensor:
    """Pixel values of one RGB image.

    Args:
        image: An RGB image.
        processor: The vision tower's image processor (resizing, normalisation).
        aspect_ratio: ``pad`` first pads to a square with the processor's mean colour; ``square`` or None leaves the
            resizing to the processor.

    Returns:
        Float tensor ``[3, H, W]``.

    Raises:
        InputError: ``aspect_ratio`` has another value.
    """
    if aspect_ratio not in ASPECT_RATIOS:
        raise InputError(f"image_aspect_ratio {aspect_ratio!r} is not supported; use 'pad' or 'square'")
    if aspect_ratio == "pad":
        image = expand_to_square(image, [int(channel * 255) for channel in processor.image_mean])
    return processor.preprocess(image, return_tensors="pt")["pixel_values"][0]
