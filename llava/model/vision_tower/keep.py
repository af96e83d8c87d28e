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
"""Numbers that are hashed at the beginning, the middle and the end of a weight."""
PARTIAL = f".{TOWER_FOLDER}.partial"
"""Where a copy is written before it takes its place, so that a kill leaves no half of one."""


def keep_tower(tower: VisionTower, run: str | Path) -> str:
    """Copy a tower that is a local folder into a run's folder, as ``vision_tower``.

    The main process writes it. A copy that is already there is left alone if it equals the tower. Towers that a name
    is enough for (hub, timm, open_clip) are not copied, unless a checkpoint brought other weights for one of the hub.

    Args:
        tower: the loaded tower.
        run: the run's output folder; created if needed.

    Returns:
        What the config is to name as ``mm_vision_tower``: the copy's absolute path, or the tower's own name.

    Raises:
        InputError: the copy cannot be written, or the run's checkpoints were made with another tower.
    """
    if not isinstance(tower, HFVisionTower):
        return tower.name
    # A checkpoint can bring other weights for a tower than those its name stands for. The name alone would then lead a
    # later stage to the wrong ones, so that such a tower is copied even if it comes from the hub.
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
    """Another name for a tower's files, for checkpoints that are moved away from it; takes no space where links can be.

    Writing the tower anew leaves the files of this copy as they are.
    """

    def link(source: str, name: str) -> None:
        try:
            os.link(source, name)
        except OSError:
            shutil.copy2(source, name)

    shutil.copytree(folder, target, copy_function=link)


def tower_fingerprint(folder: str | Path) -> str:
    """Tells towers in local folders apart; the same for a tower, for its vision half and for a copy of either.

    Hashes the configuration, the image processor, and samples of every weight.

    Raises:
        InputError: no tower there, or one that is cut short.
    """
    check_weight_files(folder)
    found = TowerFiles.read(Path(folder))
    facts = [config_facts(found.config), processor_settings(found.image_processor)]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    weights = {_plain(name): tensor for name, tensor in found.weights.items()}
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        # Samples are enough: training changes all of a weight, and a tower may have gigabytes.
        values = tensor.reshape(-1)
        for start in (0, len(values) // 2, max(0, len(values) - SAMPLE)):
            digest.update(values[start : start + SAMPLE].view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class TowerFiles:
    """What the files of a tower hold: the vision half only, of one that reads text as well.

    Attributes:
        config: the vision model's configuration.
        image_processor: the tower's.
        weights: Weights by name, in the data type of the files.
    """

    config: PreTrainedConfig
    image_processor: ImageProcessor
    weights: dict[str, Tensor]

    @classmethod
    def read(cls, folder: Path, carried: Mapping[str, Tensor] | None = None) -> TowerFiles:
        """Read a tower's folder; ``carried`` weights take the place of those of the same name."""
        model_class, _ = tower_family(str(folder), str(folder))
        weights = read_weights(folder, lambda name: not any(re.search(pattern, name) for pattern in OTHER_HALF))
        changed = {_plain(name): tensor for name, tensor in (carried or {}).items()}
        return cls(
            model_class.config_class.from_pretrained(folder),
            read_image_processor(str(folder)),
            {name: changed.get(_plain(name), tensor) for name, tensor in weights.items()},
        )

    def write(self, folder: Path) -> None:
        """Write a folder that loads as a tower."""
        self.config.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        weights = {name: tensor.contiguous() for name, tensor in self.weights.items()}
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    def equals(self, other: TowerFiles) -> bool:
        """Whether both hold the same tower, every number and its dtype."""
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
            f"{target} is not the vision tower {name!r}, and {', '.join(trained)} beside it were trained with it: give "
            f"--vision_tower {target} to go on with them, or another --output_dir"
        )
    # The old copy goes only when the new one is whole. A kill in between leaves none, and the next start writes it.
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
    """What a copy holds; None if there is none, or one that is broken."""
    if not (folder / WEIGHTS).is_file() or broken_weight_files(folder):
        return None
    try:
        return TowerFiles.read(folder)
    except (InputError, OSError, ValueError):
        return None


def _same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(same_values(tensor, other[name]) for name, tensor in one.items())
