"""Comparing image processors: their settings, and the pixels they give."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image


class ImageProcessor(Protocol):
    """The interface of an image processor; transformers' image processors implement it."""

    @property
    def image_mean(self) -> Any:
        """Mean of each channel, 0 to 1, subtracted when normalising."""

    @property
    def size(self) -> Any:
        """Target size of images: ``height`` and ``width``, or ``shortest_edge``."""

    def preprocess(self, images: Any, **kwargs: Any) -> Any:
        """A batch with ``pixel_values``."""

    def to_dict(self) -> dict[str, Any]:
        """All settings."""

    def save_pretrained(self, save_directory: Any) -> Any:
        """Write ``preprocessor_config.json``."""


SETTINGS = (
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor"),
    *("do_normalize", "image_mean", "image_std", "do_convert_rgb"),
)
"""Settings that determine the preprocessing of an image, except padding."""

SHAPES = ((64, 64), (97, 41), (40, 111), (23, 24))
"""Widths and heights of the images used to compare two processors."""

TOLERANCE = 1e-5
"""Tolerance for normalised pixels: allows a different order of rounding, not a different image."""


def processor_settings(processor: ImageProcessor) -> dict[str, Any]:
    """The settings of an image processor that are set; sequences as lists, so that equal settings compare equal."""
    found = processor.to_dict()
    settings = {key: found[key] for key in SETTINGS if found.get(key) is not None}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}


def pixel_difference(
    one: Callable[[Image.Image], torch.Tensor], other: Callable[[Image.Image], torch.Tensor]
) -> str | None:
    """Compare two ways of preprocessing on random images of several shapes.

    Args:
        one, other: Functions from an RGB image to its pixel values ``[3, H, W]``.

    Returns:
        Size and difference of the first image that differs, such as ``64 x 64 (by up to 0.3)``; None if all are the
        same.
    """
    random = np.random.default_rng(0)
    for width, height in SHAPES:
        picture = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        first, second = one(picture), other(picture)
        if first.shape != second.shape:
            return f"{width} x {height} (in size: {list(first.shape)} here, {list(second.shape)} there)"
        if not torch.allclose(first, second, atol=TOLERANCE):
            return f"{width} x {height} (by up to {(first - second).abs().max():.2g})"
    return None
