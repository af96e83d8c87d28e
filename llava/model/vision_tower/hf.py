"""SigLIP and CLIP vision towers from transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from torch import Tensor
from transformers import (
    AutoConfig,
    CLIPImageProcessorPil,
    CLIPVisionModel,
    PreTrainedConfig,
    SiglipImageProcessorPil,
    SiglipVisionModel,
)

from llava.errors import InputError
from llava.model.checkpoint import tower_weights
from llava.model.config import VisionSettings, is_hub_name
from llava.model.vision_tower.base import VisionTower
from llava.model.vision_tower.processors import ImageProcessor
from llava.model.weight_files import check_weight_files
from llava.model.zero import gathered

OTHER_HALF = [r"^text_model\.", r"^(text|visual)_projection\.", r"^logit_(scale|bias)$"]
"""Weights of a two-tower (image and text) checkpoint that a vision tower does not use."""


class SiglipTower(SiglipVisionModel):
    """SigLIP's vision model; reads two-tower checkpoints without warnings about the text half's weights."""

    base_model_prefix = "vision_model"
    _keys_to_ignore_on_load_unexpected = OTHER_HALF


class ClipTower(CLIPVisionModel):
    """CLIP's vision model; reads two-tower checkpoints without warnings about the text half's weights."""

    base_model_prefix = "vision_model"
    _keys_to_ignore_on_load_unexpected = OTHER_HALF


NOT_FEATURES = (
    *("_name_or_path", "architectures", "transformers_version", "dtype", "initializer_range", "initializer_factor"),
    *("num_hidden_layers", "projection_dim", "vision_use_head"),
)
"""Settings of a tower's config.json that its features do not depend on; the number of layers that run is used
instead."""
USED = ("embeddings.", "pre_layrnorm.", "encoder.")
"""Name prefixes of weights that the features depend on."""

FAMILIES: dict[str, tuple[Any, Any]] = {
    "siglip": (SiglipTower, SiglipImageProcessorPil),
    "siglip_vision_model": (SiglipTower, SiglipImageProcessorPil),
    "clip": (ClipTower, CLIPImageProcessorPil),
    "clip_vision_model": (ClipTower, CLIPImageProcessorPil),
}
"""``model_type`` of a tower's config.json -> model class, image processor (PIL's, so that machines agree)."""


def resolve_tower(name: str, checkpoint_folder: str | None = None) -> str:
    """Find a tower: a folder relative to the checkpoint, a folder relative to the working directory, or a hub name.

    Args:
        name: Value of ``mm_vision_tower``.
        checkpoint_folder: Folder of the language model's checkpoint, if it is local.

    Returns:
        The folder's path (downloaded, if it is one of a checkpoint on the Hub), or ``name`` itself if it can only be a
        hub name.

    Raises:
        InputError: ``name`` is a path and no such folder exists, here or in the checkpoint's repository of the Hub.
    """
    tried = [Path(name).expanduser()]
    if checkpoint_folder and not tried[0].is_absolute() and Path(checkpoint_folder).is_dir():
        tried.insert(0, (Path(checkpoint_folder) / name).resolve())
    for folder in tried:
        if folder.is_dir():
            return str(folder)
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") != 1
    if looks_like_path and checkpoint_folder and is_hub_name(checkpoint_folder):
        return _part_of_repository(checkpoint_folder, name)
    if looks_like_path:
        places = " and ".join(str(folder) for folder in tried)
        config = Path(checkpoint_folder or "") / "config.json"
        raise InputError(
            f"vision tower {name!r} not found: no folder at {places}; put the tower there, or say where it is: with "
            f"--vision_tower for the model that is trained, otherwise as mm_vision_tower in {config}"
        )
    return name


def _part_of_repository(repository: str, folder: str) -> str:
    """The local copy of a folder in a checkpoint's repository of the Hub.

    Raises:
        InputError: There is no such folder, or the Hub cannot be reached.
    """
    try:
        found = Path(snapshot_download(repository, allow_patterns=[f"{folder}/*"])) / folder
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise InputError(f"vision tower {folder!r} of {repository} could not be downloaded: {error}") from error
    if not found.is_dir():
        raise InputError(f"vision tower {folder!r} not found: {repository} has no such folder")
    return str(found)


def config_facts(config: PreTrainedConfig) -> dict[str, Any]:
    """The settings of a tower's configuration that its features depend on."""
    return {key: value for key, value in config.to_dict().items() if key not in NOT_FEATURES}


def tower_family(source: str, name: str) -> tuple[Any, Any]:
    """The model class and the image processor class of a tower.

    Args:
        source: Folder or hub name of the tower.
        name: Name given by the user, for error messages.

    Raises:
        InputError: There is no readable config.json, or the tower type is unknown.
    """
    try:
        kind = AutoConfig.from_pretrained(source).model_type
    except (OSError, ValueError) as error:
        raise InputError(f"vision tower {name!r} (looked for at {source}): no readable config.json: {error}") from error
    if kind not in FAMILIES:
        raise InputError(
            f"vision tower {name!r} is of model type {kind!r}; expected one of "
            f"{', '.join(FAMILIES)} (or a tower named timm:NAME or open_clip:NAME)"
        )
    return FAMILIES[kind]


def read_image_processor(name: str, checkpoint_folder: str | None = None) -> ImageProcessor:
    """A tower's image processor, without loading the tower's weights.

    Args:
        name: Hub name or folder.
        checkpoint_folder: A relative ``name`` is also searched here.

    Raises:
        InputError: The tower cannot be found, or has no image processor.
    """
    source = resolve_tower(name, checkpoint_folder)
    _, processor_class = tower_family(source, name)
    try:
        return processor_class.from_pretrained(source)
    except OSError as error:
        raise InputError(f"vision tower {name!r} (looked for at {source}): {error}") from error


class HFVisionTower(VisionTower):
    """A SigLIP or CLIP tower from a vision-only or a two-tower (image and text) checkpoint.

    The family is determined by the ``model_type`` in the tower's config.json, never by its path. Layers above the
    selected one are dropped.

    Args:
        name: Hub name or folder.
        settings: Layer and features to use.
        checkpoint_folder: A relative ``name`` is also searched here.
    """

    def __init__(self, name: str, settings: VisionSettings, checkpoint_folder: str | None = None) -> None:
        super().__init__(name, settings)
        self.checkpoint_folder = checkpoint_folder
        self.source = name

    def _load(self, dtype: torch.dtype | None) -> None:
        self.source = resolve_tower(self.name, self.checkpoint_folder)
        model_class, processor_class = tower_family(self.source, self.name)
        check_weight_files(self.source)
        try:
            self.vision_tower, report = model_class.from_pretrained(self.source, dtype=dtype, output_loading_info=True)
            self.image_processor = processor_class.from_pretrained(self.source)
        except OSError as error:
            raise InputError(f"vision tower {self.name!r} (looked for at {self.source}): {error}") from error
        missing = sorted(report["missing_keys"])
        if missing:
            raise InputError(
                f"vision tower {self.name!r} (looked for at {self.source}) lacks {len(missing)} weights that "
                f"its config.json calls for, among them {missing[0]}"
            )
        core = self.core
        depth = self.layers_to_run(len(core.encoder.layers))
        core.encoder.layers = core.encoder.layers[:depth]
        config = self.vision_tower.config
        self.hidden_size = config.hidden_size
        self.image_size = config.image_size
        self.has_class_token = hasattr(core.embeddings, "class_embedding")
        keeps_class_token = self.has_class_token and self.settings.select_feature == "cls_patch"
        self.num_patches = (config.image_size // config.patch_size) ** 2 + int(keeps_class_token)

    def place(self) -> str:
        """The folder or hub name that the tower was loaded from."""
        return str(Path(self.source).resolve()) if Path(self.source).is_dir() else self.source

    def recipe(self) -> dict[str, Any]:
        """As in the base class; independent of the tower's name and the number of its unused layers."""
        return {
            "model_type": self.vision_tower.config.model_type,
            **config_facts(self.vision_tower.config),
            "number of layers that run": len(self.core.encoder.layers),
            "number of visual tokens": self.num_patches,
        }

    def used_weights(self) -> dict[str, Tensor]:
        """As in the base class, without the layers after the selected one and the pooling head."""
        return {name: weight for name, weight in self.core.named_parameters() if name.startswith(USED)}

    @property
    def core(self) -> Any:
        """The module with ``embeddings`` and ``encoder``; some transformers versions nest it."""
        return getattr(self.vision_tower, "vision_model", self.vision_tower)

    def _encode(self, images: Tensor) -> Tensor:
        core = self.core
        hidden = core.embeddings(images)
        if hasattr(core, "pre_layrnorm"):
            hidden = core.pre_layrnorm(hidden)
        hidden = core.encoder(inputs_embeds=hidden).last_hidden_state
        if self.has_class_token and self.settings.select_feature == "patch":
            hidden = hidden[:, 1:]
        return hidden

    def load_carried(self, checkpoint: str | Path) -> None:
        """As in the base class, without the layers above the selected one."""
        weights = tower_weights(Path(checkpoint))
        if not weights:
            return
        self.carried_by = str(checkpoint)
        own = dict(self.core.named_parameters())
        with gathered(own.values(), write=True), torch.no_grad():
            for key, tensor in weights.items():
                target = own.get(key.removeprefix("vision_model."))
                if target is None:
                    continue
                if target.shape != tensor.shape:
                    raise InputError(
                        f"the checkpoint's vision tower weight {key} has shape {list(tensor.shape)}, the "
                        f"tower {self.name!r} has {list(target.shape)}"
                    )
                target.copy_(tensor)
