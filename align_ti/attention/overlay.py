"""An attention map drawn as heat over the image, each visual token at the pixels it covers."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from llava.model.vision_tower import VisionTower
from llava.model.vision_tower.processors import ImageProcessor

COLOURS = "inferno"
DISPLAY_SIDE = 720
"""Longest side of a drawn image, in pixels."""

BRIGHTNESS = 0.45
"""Share of the image that stays visible under the heat."""


@dataclass(frozen=True)
class SeenBox:
    """The rectangle that a square grid of visual tokens covers, in image pixels (larger than the image with
    ``pad``)."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def of(
        cls, width: int, height: int, aspect_ratio: str | None, processor: ImageProcessor, tower: VisionTower
    ) -> "SeenBox":
        """The part of an image that a model sees: the inverse of ``llava.data.images.preprocess_image``.

        Args:
            width, height: Size of the image, in pixels.
            aspect_ratio: The model's ``image_aspect_ratio``.
            processor: The tower's image processor.
            tower: The vision tower.
        """
        left, top, right, bottom = 0.0, 0.0, float(width), float(height)
        if aspect_ratio == "pad":
            side = max(width, height)
            left, top = float(-((side - width) // 2)), float(-((side - height) // 2))
            right, bottom = left + side, top + side
        short = dict(getattr(processor, "size", None) or {}).get("shortest_edge")
        if short and getattr(processor, "do_center_crop", False):
            scale = short / min(right - left, bottom - top)
            half = processor.to_dict()["crop_size"]["height"] / scale / 2
            middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
            left, right, top, bottom = middle_x - half, middle_x + half, middle_y - half, middle_y + half
        used = covered(tower)
        return cls(left, top, left + (right - left) * used, top + (bottom - top) * used)


def covered(tower: VisionTower) -> float:
    """The share of the tower's input side that whole patches cover: 378 of 384 pixels with patches of 14."""
    config = getattr(getattr(tower, "vision_tower", None), "config", None)
    patch = getattr(config, "patch_size", None)
    if not isinstance(patch, int) or not patch:
        return 1.0
    return tower.image_size // patch * patch / tower.image_size


def sample(grid: NDArray[np.floating], box: SeenBox, width: int, height: int) -> NDArray[np.float64]:
    """A grid's values at the pixels of an image, interpolated bilinearly between patch centres.

    Args:
        grid: ``[side, side]``.
        box: What the grid covers.
        width, height: Size of the image, in pixels.

    Returns:
        ``[height, width]``, NaN at pixels that the model did not see.
    """
    side = grid.shape[0]

    def places(count: int, first: float, last: float) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        at = (np.arange(count) + 0.5 - first) / (last - first) * side
        inside = (at >= 0) & (at <= side)
        at = np.clip(at - 0.5, 0, side - 1)
        below = np.floor(at).astype(int)
        return below, np.minimum(below + 1, side - 1), at - below, inside

    x0, x1, x, seen_x = places(width, box.left, box.right)
    y0, y1, y, seen_y = places(height, box.top, box.bottom)
    rows = grid[:, x0] * (1 - x) + grid[:, x1] * x
    values = rows[y0] * (1 - y)[:, None] + rows[y1] * y[:, None]
    return np.where(seen_y[:, None] & seen_x, values, np.nan)


def share_inside(grid: NDArray[np.floating], box: SeenBox, width: int, height: int) -> float:
    """Share of the map's mass that lies on the image rather than on its padding (0 to 1)."""
    total = float(grid.sum())
    if not total:
        return 1.0
    side = grid.shape[0]

    def shares(count: int, first: float, last: float) -> NDArray[np.float64]:
        edges = first + (last - first) * np.arange(side + 1) / side
        held = np.clip(edges[1:], 0, count) - np.clip(edges[:-1], 0, count)
        return held / (edges[1:] - edges[:-1])

    weight = shares(height, box.top, box.bottom)[:, None] * shares(width, box.left, box.right)
    return float((grid * weight).sum()) / total


def display_size(width: int, height: int) -> tuple[int, int]:
    """Width and height at which an image is drawn."""
    scale = DISPLAY_SIDE / max(width, height)
    return max(1, math.floor(width * scale + 0.5)), max(1, math.floor(height * scale + 0.5))


def draw(picture: Image.Image, grid: NDArray[np.floating], box: SeenBox) -> Image.Image:
    """The image with the map over it, from black (0) to the end of the colour map (the grid's maximum). Pixels that the
    model did not see stay dark.

    Args:
        picture: RGB image.
        grid: ``[side, side]``.
        box: What the grid covers, in image pixels.

    Returns:
        RGB, ``DISPLAY_SIDE`` along its longer side.
    """
    width, height = display_size(*picture.size)
    x, y = width / picture.width, height / picture.height
    scaled = SeenBox(box.left * x, box.top * y, box.right * x, box.bottom * y)
    heat = sample(grid / max(float(grid.max()), 1e-12), scaled, width, height)
    grey = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC).convert("L"), dtype=np.float64) / 255
    under = np.repeat(grey[..., None], 3, axis=2) * BRIGHTNESS
    known = np.nan_to_num(heat)[..., None]
    over = colormaps[COLOURS](known[..., 0])[..., :3]
    # The stronger the heat, the less of the image: cold places stay readable, hot ones have the legend's colour.
    strength = np.sqrt(known)
    mixed = under * (1 - 0.75 * strength) + over * strength
    mixed = np.where(np.isnan(heat)[..., None], under * 0.4, mixed)
    return Image.fromarray((np.clip(mixed, 0, 1) * 255).round().astype(np.uint8))


def gradient(stops: int = 9) -> str:
    """The colours from 0 to the maximum, as CSS colour stops."""
    return ", ".join(
        "#{:02x}{:02x}{:02x}".format(
            *(int(round(channel * 255)) for channel in colormaps[COLOURS](i / (stops - 1))[:3])
        )
        for i in range(stops)
    )
