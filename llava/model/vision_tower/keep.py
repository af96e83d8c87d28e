"""A run's own copy of a tower that is a local folder, so that the run's folder can be moved to another machine."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import cached_file

from llava.data.processors import processor_settings
from llava.errors import InputError
from llava.model.checkpoint import tower_weights
from llava.model.config import TOWER_FOLDER
from llava.model.vision_tower.base import VisionTower
from llava.model.vision_tower.compare import same_values
from llava.model.vision_tower.hf import OTHER_HALF, HFVisionTower, config_facts, tower_family
from llava.model.weight_files import broken_weight_files, read_weights
from llava.model.zero import is_main_process

logger = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
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
    carried = tower_weights(Path(tower.carried_by)) if tower.carried_by else {}
    source = Path(tower.source)
    if not source.is_dir():
        source = Path(str(cached_file(tower.source, "config.json"))).parent
        if not carried or _same_weights(TowerFiles.read(source).weights, TowerFiles.read(source, carried).weights):
            return tower.name
    target = Path(run).resolve() / TOWER_FOLDER
    if is_main_process() and (carried or source.resolve() != target.resolve()):
        _write_unless_there(TowerFiles.read(source, carried), target, tower.name)
    return str(target)


@dataclass(frozen=True)
class TowerFiles:
    """What the files of a tower hold: the vision half only, of one that reads text as well.

    Attributes:
        config: the vision model's configuration.
        image_processor: the tower's.
        weights: in the dtype of the files, by name.
    """

    config: Any
    image_processor: Any
    weights: dict[str, Tensor]

    @classmethod
    def read(cls, folder: Path, carried: Mapping[str, Tensor] | None = None) -> TowerFiles:
        """Read a tower's folder; ``carried`` weights take the place of those of the same name."""
        model_class, processor_class = tower_family(str(folder), str(folder))
        weights = read_weights(folder, lambda name: not any(re.search(pattern, name) for pattern in OTHER_HALF))
        changed = {_plain(name): tensor for name, tensor in (carried or {}).items()}
        return cls(
            model_class.config_class.from_pretrained(folder),
            processor_class.from_pretrained(folder),
            {name: changed.get(_plain(name), tensor) for name, tensor in weights.items()},
        )

    def write(self, folder: Path) -> None:
        """Write a folder that loads as a tower."""
        self.config.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        weights = {name: tensor.contiguous() for name, tensor in self.weights.items()}
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def _plain(name: str) -> str:
    """A weight's name without the prefix that only some versions of transformers write."""
    return name.removeprefix("vision_model.")


def _write_unless_there(wanted: TowerFiles, target: Path, name: str) -> None:
    if _holds(target, wanted):
        return
    trained = sorted(folder.name for folder in target.parent.glob("checkpoint-*"))
    if target.exists() and trained:
        raise InputError(
            f"{target} is not the vision tower {name!r}, and {', '.join(trained)} beside it were trained with it: give "
            f"--vision_tower {target} to go on with them, or another --output_dir"
        )
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


def _holds(folder: Path, wanted: TowerFiles) -> bool:
    """Whether a folder already holds these contents."""
    if not (folder / WEIGHTS).is_file() or broken_weight_files(folder):
        return False
    try:
        found = TowerFiles.read(folder)
    except (InputError, OSError, ValueError):
        return False
    return (
        config_facts(found.config) == config_facts(wanted.config)
        and processor_settings(found.image_processor) == processor_settings(wanted.image_processor)
        and found.weights.keys() == wanted.weights.keys()
        and all(tensor.dtype == wanted.weights[name].dtype for name, tensor in found.weights.items())
        and _same_weights(found.weights, wanted.weights)
    )


def _same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(same_values(tensor, other[name]) for name, tensor in one.items())
