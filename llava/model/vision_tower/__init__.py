"""Vision towers by name: SigLIP and CLIP from transformers; timm and open_clip as an optional extra."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedConfig

from llava.errors import InputError
from llava.model.config import VisionSettings
from llava.model.vision_tower.base import VisionTower

__all__ = ["VisionTower", "anchor_tower", "build_vision_tower"]


def anchor_tower(config: PreTrainedConfig, folder: str | Path | None) -> None:
    """Make a tower path in the config absolute if it is relative to the checkpoint's folder.

    Args:
        config: Language model config; other tower names are left unchanged.
        folder: Checkpoint folder; ignored if it is a hub name or None.
    """
    name = getattr(config, "mm_vision_tower", None)
    if not name or not folder or not Path(folder).is_dir() or Path(name).is_absolute():
        return
    beside = Path(folder) / name
    if beside.is_dir():
        config.mm_vision_tower = str(beside.resolve())


def build_vision_tower(config: PreTrainedConfig, delay_load: bool = False) -> VisionTower:
    """Build the tower named by ``config.mm_vision_tower``.

    Args:
        config: Language model config with the ``mm_*`` keys.
        delay_load: Leave loading the weights to a later ``load_model()``.

    Raises:
        InputError: No tower is named, or (unless delayed) it cannot be loaded.
    """
    settings = VisionSettings.from_config(config)
    name = settings.tower
    if not name:
        raise InputError("the config names no vision tower (mm_vision_tower)")
    tower: VisionTower
    if name.startswith("timm:"):
        from llava.model.vision_tower.timm_tower import TimmVisionTower

        tower = TimmVisionTower(name, settings)
    elif name.startswith("open_clip:"):
        from llava.model.vision_tower.open_clip_tower import OpenClipVisionTower

        tower = OpenClipVisionTower(name, settings)
    else:
        from llava.model.vision_tower.hf import HFVisionTower

        tower = HFVisionTower(name, settings, checkpoint_folder=getattr(config, "name_or_path", None))
    if not delay_load:
        tower.load_model()
    return tower
