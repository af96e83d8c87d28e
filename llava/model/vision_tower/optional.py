"""Code shared by the towers of optional packages."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Resampling
from transformers import SiglipImageProcessorPil

from llava.errors import InputError
from llava.model.vision_tower.base import VisionTower


def import_package(package: str, tower: str) -> Any:
    """Import a package of the extra ``towers``.

    Args:
        package: Import name.
        tower: Tower that needs it, for the error message.

    Raises:
        InputError: It is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(package)
    except (ImportError, RuntimeError) as error:  # torchvision without its operators raises RuntimeError
        raise InputError(
            f"the vision tower {tower!r} needs {package}, which cannot be imported ({error}): "
            "pip install align-ti[towers]"
        ) from error


def block_index(tower: VisionTower, depth: int) -> int:
    """The block whose output is the selected hidden state.

    Raises:
        InputError: ``mm_vision_select_layer`` is out of range or selects the embedding.
    """
    layers = tower.layers_to_run(depth)
    if layers == 0:
        raise InputError(
            f"mm_vision_select_layer {tower.settings.select_layer} is the patch embedding, which the vision "
            f"tower {tower.name!r} does not give out: choose 1 to {depth} or -1 to {-depth}"
        )
    return layers - 1


def square_processor(
    tower: str, size: Sequence[int], mean: Sequence[float], std: Sequence[float], interpolation: str
) -> SiglipImageProcessorPil:
    """An image processor that resizes the whole image to the tower's square, like SigLIP's.

    Raises:
        InputError: The tower's input is not square.
    """
    height, width = size
    if height != width:
        raise InputError(f"the vision tower {tower!r} expects images of {height} x {width}; only squares work")
    filters = {"bilinear": Resampling.BILINEAR, "nearest": Resampling.NEAREST, "lanczos": Resampling.LANCZOS}
    return SiglipImageProcessorPil(
        size={"height": height, "width": width},
        image_mean=list(mean),
        image_std=list(std),
        resample=filters.get(interpolation, Resampling.BICUBIC),
    )


def learn_sizes(tower: VisionTower) -> None:
    """Set ``image_size``, ``num_patches`` and ``hidden_size`` by encoding one black image."""
    tower.eval()
    tower.image_size = tower.image_processor.size["height"]
    with torch.no_grad():
        _, tower.num_patches, tower.hidden_size = tower._encode(tower.blank()).shape
