"""SigLIP and CLIP vision towers through transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    CLIPImageProcessorPil,
    CLIPVisionModel,
    SiglipImageProcessorPil,
    SiglipVisionModel,
)

from llava.errors import InputError
from llava.model.config import VisionSettings
from llava.model.vision_tower.base import VisionTower
from llava.model.weight_files import check_weight_files
from llava.model.zero import gathered

OTHER_HALF = [r"^text_model\.", r"^(text|visual)_projection\.", r"^logit_(scale|bias)$"]
"""Weights of a two-tower (picture and text) checkpoint that a vision tower has no use for."""


class SiglipTower(SiglipVisionModel):
    """SigLIP's vision model; reads two-tower checkpoints without listing the other half's weights."""

    base_model_prefix = "vision_model"
    _keys_to_ignore_on_load_unexpected = OTHER_HALF


class ClipTower(CLIPVisionModel):
    """CLIP's vision model; reads two-tower checkpoints without listing the other half's weights."""

    base_model_prefix = "vision_model"
    _keys_to_ignore_on_load_unexpected = OTHER_HALF


FAMILIES: dict[str, tuple[Any, Any]] = {
    "siglip": (SiglipTower, SiglipImageProcessorPil),
    "siglip_vision_model": (SiglipTower, SiglipImageProcessorPil),
    "clip": (ClipTower, CLIPImageProcessorPil),
    "clip_vision_model": (ClipTower, CLIPImageProcessorPil),
}
"""``model_type`` of a tower's config.json -> model class, image processor (PIL's, so that machines agree)."""


def resolve_tower(name: str, checkpoint_folder: str | None = None) -> str:
    """Find a tower: a folder beside the checkpoint, a folder from here, otherwise a hub name.

    Args:
        name: the value of ``mm_vision_tower``.
        checkpoint_folder: where the language model's checkpoint lies, if it is a folder.

    Returns:
        The folder's path, or ``name`` itself when it can only be a hub name.

    Raises:
        InputError: ``name`` is a path and no such folder exists.
    """
    tried = [Path(name).expanduser()]
    if checkpoint_folder and not tried[0].is_absolute() and Path(checkpoint_folder).is_dir():
        tried.insert(0, (Path(checkpoint_folder) / name).resolve())
    for folder in tried:
        if folder.is_dir():
            return str(folder)
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") != 1
    if looks_like_path:
        places = " and ".join(str(folder) for folder in tried)
        raise InputError(f"vision tower {name!r} not found: no folder at {places}; set mm_vision_tower to a tower")
    return name


class HFVisionTower(VisionTower):
    """A SigLIP or CLIP tower from a vision-only or a two-tower (picture and text) checkpoint.

    The family is told by the ``model_type`` in the tower's config.json, never by its path. Layers above the
    selected one are dropped.

    Args:
        name: hub name or folder.
        settings: layer and features to take.
        checkpoint_folder: a relative ``name`` is also looked for here.
    """

    def __init__(self, name: str, settings: VisionSettings, checkpoint_folder: str | None = None) -> None:
        super().__init__(name, settings)
        self.checkpoint_folder = checkpoint_folder
        self.source = name

    def _load(self, dtype: torch.dtype | None) -> None:
        self.source = resolve_tower(self.name, self.checkpoint_folder)
        model_class, processor_class = self._family()
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

    def _family(self) -> tuple[Any, Any]:
        try:
            kind = AutoConfig.from_pretrained(self.source).model_type
        except (OSError, ValueError) as error:
            raise InputError(
                f"vision tower {self.name!r} (looked for at {self.source}): no readable config.json: {error}"
            ) from error
        if kind not in FAMILIES:
            raise InputError(
                f"vision tower {self.name!r} is of model type {kind!r}; expected one of "
                f"{', '.join(FAMILIES)} (or a tower named timm:NAME or open_clip:NAME)"
            )
        return FAMILIES[kind]

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

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Take weights that a language model's checkpoint carries for this tower.

        Args:
            weights: tensors by name, with or without the leading ``vision_model.``; layers above the selected
                one are left out.

        Raises:
            InputError: a weight has another shape than the tower's.
        """
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
