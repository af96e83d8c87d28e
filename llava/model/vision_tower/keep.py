"""A run's own copy of a tower that is a local folder, so that the run's folder can be moved to another machine."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.utils import cached_file

from llava.errors import InputError
from llava.model.checkpoint import tower_weights
from llava.model.config import TOWER_FOLDER
from llava.model.vision_tower.base import VisionTower
from llava.model.vision_tower.compare import same_values
from llava.model.vision_tower.hf import OTHER_HALF, HFVisionTower, config_facts, read_image_processor, tower_family
from llava.model.vision_tower.processors import ImageProcessor, processor_settings
from llava.model.weight_files import broken_weight_files, check_weight_files, read_weights
from llava.model.zero import is_main_process

logger = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
SAMPLE = 256
"""Number of values hashed at the beginning, the middle and the end of a weight."""
PARTIAL = f".{TOWER_FOLDER}.partial"
"""Temporary folder of a copy, so that a killed process leaves no incomplete copy."""


def keep_tower(tower: VisionTower, run: str | Path) -> str:
    """Copy a tower that is a local folder to a run's folder, as ``vision_tower``.

    The main process writes it. An existing copy that equals the tower is kept. Towers that can be loaded by name (hub,
    timm, open_clip) are not copied, unless a checkpoint replaced the weights of a hub tower.

    Args:
        tower: The loaded tower.
        run: Output folder of the run; created if needed.

    Returns:
        The value for ``mm_vision_tower``: the copy's absolute path, or the tower's own name.

    Raises:
        InputError: The copy cannot be written, or the run's checkpoints were trained with another tower.
    """
    if not isinstance(tower, HFVisionTower):
        return tower.name
    # A checkpoint can contain other weights for a tower than those published under its name. A later stage that loads
    # the tower by name would get the wrong weights, so such a tower is copied even if it comes from the hub.
    carried = tower_weights(Path(tower.carried_by)) if tower.carried_by else {}
    source = Path(tower.source)
    if not source.is_dir():
        if not carried:
            return tower.name
        source = Path(str(cached_file(tower.source, "config.json"))).parent
        if _same_weights(TowerFiles.read(source).weights, TowerFiles.read(source, carried).weights):
            return tower.name
    target = Path(run).resolve() / TOWER_FOLDER
    if is_main_process() and (carried or source.resolve() != target.resolve()):
        _write_unless_there(TowerFiles.read(source, carried), target, tower.name)
    return str(target)


def keep_copy(folder: Path, target: Path) -> None:
    """A second copy of a tower's files, for checkpoints that are moved away from it; hard links where possible.

    Rewriting the tower does not change the files of this copy.
    """

    def link(source: str, name: str) -> None:
        try:
            os.link(source, name)
        except OSError:
            shutil.copy2(source, name)

    shutil.copytree(folder, target, copy_function=link)


def tower_fingerprint(folder: str | Path) -> str:
    """Fingerprint of a tower in a local folder; the same for a tower, its vision half and copies of either.

    Hashes the configuration, the image processor, and samples of every weight.

    Raises:
        InputError: There is no tower, or it is truncated.
    """
    check_weight_files(folder)
    found = TowerFiles.read(Path(folder))
    facts = [config_facts(found.config), processor_settings(found.image_processor)]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    weights = {_plain(name): tensor for name, tensor in found.weights.items()}
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        # Samples are enough: training changes all values of a weight, and a tower may have gigabytes.
        values = tensor.reshape(-1)
        for start in (0, len(values) // 2, max(0, len(values) - SAMPLE)):
            digest.update(values[start : start + SAMPLE].view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class TowerFiles:
    """The contents of a tower's files; only the vision half of a two-tower model.

    Attributes:
        config: Configuration of the vision model.
        image_processor: Image processor of the tower.
        weights: Weights by name, in the data type of the files.
    """

    config: PreTrainedConfig
    image_processor: ImageProcessor
    weights: dict[str, Tensor]

    @classmethod
    def read(cls, folder: Path, carried: Mapping[str, Tensor] | None = None) -> TowerFiles:
        """Read a tower's folder; ``carried`` weights replace those of the same name."""
        model_class, _ = tower_family(str(folder), str(folder))
        weights = read_weights(folder, lambda name: not any(re.search(pattern, name) for pattern in OTHER_HALF))
        changed = {_plain(name): tensor for name, tensor in (carried or {}).items()}
        return cls(
            model_class.config_class.from_pretrained(folder),
            read_image_processor(str(folder)),
            {name: changed.get(_plain(name), tensor) for name, tensor in weights.items()},
        )

    def write(self, folder: Path) -> None:
        """Write a folder that can be loaded as a tower."""
        self.config.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        weights = {name: tensor.contiguous() for name, tensor in self.weights.items()}
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    def equals(self, other: TowerFiles) -> bool:
        """Whether both contain the same tower, with equal values and dtypes."""
        return (
            config_facts(self.config) == config_facts(other.config)
            and processor_settings(self.image_processor) == processor_settings(other.image_processor)
            and self.weights.keys() == other.weights.keys()
            and all(tensor.dtype == other.weights[name].dtype for name, tensor in self.weights.items())
            and _same_weights(self.weights, other.weights)
        )


def _plain(name: str) -> str:
    """A weight's name without the prefix that only some versions of transformers write."""
    return name.removeprefix("vision_model.")


def _write_unless_there(wanted: TowerFiles, target: Path, name: str) -> None:
    found = _read_whole(target)
    if found is not None and found.equals(wanted):
        return
    trained = sorted(folder.name for folder in target.parent.glob("checkpoint-*"))
    if found is not None and trained:
        raise InputError(
            f"{target} is not the vision tower {name!r}, and {', '.join(trained)} next to it were trained with it: "
            f"pass --vision_tower {target} to continue with them, or choose another --output_dir"
        )
    # The old copy is removed only when the new one is complete. A kill in between leaves none, and the next start
    # writes it.
    partial = target.with_name(PARTIAL)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        wanted.write(partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    except OSError as error:
        raise InputError(
            f"the vision tower {name!r} could not be copied to {target} ({error}): make room there, or choose another "
            "--output_dir"
        ) from error
    logger.info("copied the vision tower %s to %s", name, target)


def _read_whole(folder: Path) -> TowerFiles | None:
    """The contents of a copy; None if it is missing or broken."""
    if not (folder / WEIGHTS).is_file() or broken_weight_files(folder):
        return None
    try:
        return TowerFiles.read(folder)
    except (InputError, OSError, ValueError):
        return None


def _same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(same_values(tensor, other[name]) for name, tensor in one.items())
