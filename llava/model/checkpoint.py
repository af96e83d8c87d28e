"""Projector files, tower weights inside checkpoints, and their weight names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llava.errors import InputError
from llava.model.weight_files import PROJECTOR_FILE, check_weight_file, model_files, read_weights
from llava.model.zero import gathered, is_main_process

KEY_MAPPING = {r"^model\.mm_projector\.image_spatial_proj\.": "model.mm_projector."}
"""Weight names of the Align-TI authors' released checkpoints -> LLaVA's."""
TOWER_KEYS = r"^model\.(vision_tower|image_tower)\."
"""Prefix of a vision tower's weights inside a checkpoint; the authors' ``image_tower`` is ignored, as in their
loader."""
TOWER_PREFIX = "model.vision_tower.vision_tower."


def save_projector(model: Any, folder: str | Path) -> None:
    """Write ``mm_projector.bin`` (keys ``model.mm_projector.*``) and ``config.json``, as LLaVA's first stage
    does.

    Under ZeRO-3 every rank must call it; rank 0 writes.

    Args:
        model: Model of this package.
        folder: Output folder; created if needed.
    """
    folder = Path(folder)
    projector = model.model.mm_projector
    with gathered(projector.parameters()):
        weights = {
            f"model.mm_projector.{key}": value.detach().cpu().clone() for key, value in projector.named_parameters()
        }
    if is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(weights, folder / PROJECTOR_FILE)
        model.config.save_pretrained(folder)


def load_projector(model: Any, file: str | Path) -> None:
    """Load projector weights into a model, with LLaVA's or the authors' names.

    Under ZeRO-3 every rank must call it.

    Args:
        model: Model of this package with a projector.
        file: ``mm_projector.bin``, or a folder that contains one.

    Raises:
        InputError: The file is missing or truncated, weights are missing or unexpected, or shapes differ from the
            model's projector.
    """
    file = Path(file)
    if file.is_dir():
        file = file / PROJECTOR_FILE
    if not file.is_file():
        raise InputError(f"no projector weights at {file}; expected the {PROJECTOR_FILE} of a pretraining run")
    check_weight_file(file)
    found = {
        re.sub(r"^(.*\.)?mm_projector\.(image_spatial_proj\.)?", "", key): value
        for key, value in torch.load(file, map_location="cpu", weights_only=True).items()
        if "mm_projector." in key
    }
    projector = model.model.mm_projector
    kind = getattr(model.config, "mm_projector_type", None)
    own = dict(projector.named_parameters())
    if found.keys() != own.keys():
        raise InputError(
            f"{file} holds projector weights {sorted(found)}, but the model's projector ({kind}) has "
            f"{sorted(own)}: check mm_projector_type"
        )
    with gathered(own.values(), write=True), torch.no_grad():
        for key, parameter in own.items():
            if parameter.shape != found[key].shape:
                raise InputError(
                    f"{file}: projector weight {key} has shape {list(found[key].shape)}, the model's has "
                    f"{list(parameter.shape)}; they belong to different towers or language models"
                )
            parameter.copy_(found[key])


def tower_weights(folder: Path) -> dict[str, Tensor]:
    """The vision tower's weights contained in a local checkpoint with LLaVA's names.

    Args:
        folder: The checkpoint; a hub name simply is no folder.

    Returns:
        Tensors by their name inside the tower; empty if there are none.
    """
    found = read_weights(folder, lambda name: name.startswith(TOWER_PREFIX))
    return {name.removeprefix(TOWER_PREFIX): tensor for name, tensor in found.items()}


def has_weights(folder: Path) -> bool:
    """Whether a folder contains a language model's weights."""
    return bool(model_files(folder))
