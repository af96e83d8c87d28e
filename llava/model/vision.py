"""The vision half of a vision-language model: tower, projector, and the splice into a batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from llava.errors import InputError
from llava.model.checkpoint import load_projector
from llava.model.config import VisionSettings
from llava.model.projector import build_projector
from llava.model.protocol import VisionLanguageModel
from llava.model.splice import SplicedBatch, flatten_images, splice
from llava.model.vision_tower import VisionTower, build_vision_tower
from llava.model.vision_tower.compare import tower_difference
from llava.model.zero import is_partitioned


class VisionMixin:
    """Methods of a language model whose decoder ``.model`` may have ``vision_tower`` and ``mm_projector``."""

    config: PreTrainedConfig
    model: Any
    training: bool
    _keys_to_ignore_on_save: Any

    def get_model(self) -> Any:
        """The decoder with tower and projector (LLaVA's name for it)."""
        return self.model

    def get_vision_tower(self) -> VisionTower | None:
        """The tower, or ``None`` for a model without vision."""
        return self.model.get_vision_tower()

    def initialize_vision_modules(
        self,
        vision_tower: str,
        mm_projector_type: str = "linear",
        mm_vision_select_layer: int = -1,
        mm_vision_select_feature: str = "patch",
        pretrain_mm_mlp_adapter: str | None = None,
    ) -> None:
        """Attach vision tower and projector before training, and record them in the model's config.

        An existing projector is kept if its type and widths still fit; otherwise a new one is initialised.

        Args:
            vision_tower: Hub name, folder, ``timm:NAME`` or ``open_clip:NAME[@PRETRAINED]``.
            mm_projector_type: ``linear``, ``mlpNx_gelu`` or ``identity``.
            mm_vision_select_layer: Hidden state of the tower to use.
            mm_vision_select_feature: ``patch`` or ``cls_patch``.
            pretrain_mm_mlp_adapter: ``mm_projector.bin`` of an earlier stage.

        Raises:
            InputError: A setting is unknown, the tower cannot be loaded, or the projector weights do not fit.
        """
        config, decoder = self.config, self.model
        before = VisionSettings.from_config(config)
        config.mm_vision_tower = vision_tower
        config.mm_vision_select_layer = mm_vision_select_layer
        config.mm_vision_select_feature = mm_vision_select_feature
        config.mm_projector_type = mm_projector_type
        config.use_mm_proj = True
        former = self.get_vision_tower()
        renewed = former is None or not same_tower(before, VisionSettings.from_config(config))
        if renewed:
            decoder.vision_tower = build_vision_tower(config, delay_load=True)
        config.mm_hidden_size = None
        self.load_vision_tower()
        if renewed and former is not None and former.carried_by and same_name(former.name, vision_tower):
            decoder.vision_tower.load_carried(former.carried_by)  # another layer of the same tower
        fits = before.projector_type == mm_projector_type and before.hidden_size == config.mm_hidden_size
        if not (fits and hasattr(decoder, "mm_projector")):
            decoder.mm_projector = build_projector(config).to(self.vision_home())
        if pretrain_mm_mlp_adapter:  # "" is none, too
            load_projector(self, pretrain_mm_mlp_adapter)

    def vision_home(self) -> Tensor:
        """The token embedding's weight; tower and projector have its device and dtype."""
        return self.model.embed_tokens.weight

    def load_vision_tower(self) -> None:
        """Load the tower's weights to the model's device and dtype; does nothing if they are loaded.

        Raises:
            InputError: The tower cannot be found, or its width does not match the projector.
        """
        tower = self.get_vision_tower()
        if tower is None:
            raise InputError("the model has no vision tower: call initialize_vision_modules() first")
        home = self.vision_home()
        tower.load_model(device=home.device, dtype=home.dtype)
        self.adopt_vision_tower(tower)

    def adopt_vision_tower(self, tower: VisionTower) -> None:
        """Use a loaded tower, and exclude its weights from ``save_pretrained``.

        Raises:
            InputError: The width of the tower's features differs from the projector's input.
        """
        width = getattr(self.config, "mm_hidden_size", None)
        if width is not None and width != tower.hidden_size:
            raise InputError(
                f"the vision tower {tower.name!r} has features of width {tower.hidden_size}, but the "
                f"projector was made for {width} (mm_hidden_size): use the tower it was trained with"
            )
        self.config.mm_hidden_size = tower.hidden_size
        self.model.vision_tower = tower
        # The config names the tower, so its weights are not written. On resuming, transformers' Trainer warns
        # of missing weights unless they are exactly these, tied ones included.
        names = {f"model.vision_tower.{key}" for key in tower.state_dict()}
        self._keys_to_ignore_on_save = names | set(getattr(self, "all_tied_weights_keys", {}))

    def needs_vision_every_step(self) -> bool:
        """Whether a batch without images must still run tower and projector.

        In distributed training every rank has to take part in the same collectives. Those are the projector's
        gradients while training, and the gathering of weights that ZeRO-3 has partitioned at any time.
        """
        decoder = self.model
        if not hasattr(decoder, "mm_projector") or not decoder.vision_tower.is_loaded:
            return False
        if self.training and torch.is_grad_enabled():
            return True
        return is_partitioned(decoder.mm_projector.parameters()) or is_partitioned(decoder.vision_tower.parameters())

    def vision_features(self, images: Tensor | Sequence[Tensor] | None) -> Tensor:
        """The tower's features, before the projector and without gradient.

        Args:
            images: Images in any form that ``flatten_images`` accepts. Without images, the tower still runs once on a
                black image if distributed training requires it, and the result is empty.

        Returns:
            ``[N, Nv, Dv]``, with N = 0 without images; models that share a tower can share the features.

        Raises:
            InputError: The model has no tower, or images have the wrong size.
        """
        pictures = flatten_images(images)
        tower = self.get_vision_tower()
        if pictures is not None:
            if tower is None:
                raise InputError("the batch has images but the model has no vision tower (mm_vision_tower)")
            return tower(pictures)
        if tower is not None and self.needs_vision_every_step():
            return tower(tower.blank())[:0]
        return self.vision_home().new_zeros(0, 0, 0)

    def project(self, features: Tensor) -> Tensor:
        """Visual tokens ``[N, Nv, D]`` from the tower's features ``[N, Nv, Dv]``."""
        projector = self.model.mm_projector
        return projector(features.to(next(projector.parameters(), self.vision_home())))

    def encode_images(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Visual tokens ``[N, Nv, D]`` of images."""
        return self.project(self.vision_features(images))

    def splice_inputs(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        instruction_mask: Tensor | None = None,
        images: Tensor | Sequence[Tensor] | None = None,
        vision_features: Tensor | None = None,
        padding_side: str | None = None,
    ) -> SplicedBatch:
        """Embeddings of ids and images, with everything aligned; see ``llava.model.splice``.

        Args:
            input_ids: ``[B, T]`` with -200 for each image.
            attention_mask: ``[B, T]``, non-zero at tokens.
            labels: ``[B, T]``, -100 where there is no target.
            instruction_mask: ``[B, T]`` bool.
            images: Images in reading order.
            vision_features: Features of the images ``[N, Nv, Dv]``, if already computed.
            padding_side: ``right`` or ``left``; by default ``config.tokenizer_padding_side`` or ``right``.

        Raises:
            InputError: Markers and images do not match, or there are images but the model has no tower.
        """
        pictures = flatten_images(images)
        if vision_features is None and (pictures is not None or self.needs_vision_every_step()):
            vision_features = self.vision_features(pictures)
        visual, blank = None, None
        if vision_features is not None and len(vision_features) > 0:
            visual = self.project(vision_features)
        elif self.needs_vision_every_step():
            tower = self.model.vision_tower
            blank = self.project(torch.zeros(1, tower.num_patches, tower.hidden_size))
        return splice(
            self.model.embed_tokens,
            input_ids,
            visual,
            attention_mask=attention_mask,
            labels=labels,
            instruction_mask=instruction_mask,
            padding_side=padding_side or getattr(self.config, "tokenizer_padding_side", None) or "right",
            blank=blank,
        )


def same_tower(one: VisionSettings, other: VisionSettings) -> bool:
    """Whether two configs name the same features of the same tower, possibly by different paths."""
    if (one.select_layer, one.select_feature) != (other.select_layer, other.select_feature):
        return False
    if one.tower is None or other.tower is None:
        return one.tower == other.tower
    return same_name(one.tower, other.tower)


def same_name(one: str, other: str) -> bool:
    """Whether two names or paths refer to the same tower; copies of a tower have different ones."""
    return one == other or (os.path.isdir(one) and os.path.isdir(other) and os.path.samefile(one, other))


def share_vision_tower(
    student: VisionMixin, teacher: VisionLanguageModel, names: tuple[str, str] = ("student", "teacher")
) -> None:
    """Let the student use the teacher's tower object, so that the tower is held in memory, and run, only once.

    Under ZeRO-3 every rank must call it.

    Args:
        student: A model whose own tower need not be loaded; a loaded one must give the same features (see
            ``tower_difference``), one that is not loaded must be the same by its name, layer and feature.
        teacher: A model with a loaded tower.
        names: Names of the two models, in this order, for the message.

    Raises:
        InputError: The towers differ; the message names both and the difference.
    """
    mine, theirs = VisionSettings.from_config(student.config), VisionSettings.from_config(teacher.config)
    own, tower = student.get_vision_tower(), teacher.get_vision_tower()
    if tower is None or not tower.is_loaded:
        raise InputError(f"the {names[1]} has no loaded vision tower to share")
    if own is not None and own.is_loaded:
        difference = tower_difference(own, tower)
    else:
        difference = None if same_tower(mine, theirs) else "they have different names, layers or features"
    if difference is not None:
        raise InputError(
            f"{names[0]} and {names[1]} cannot share a vision tower ({difference}): the {names[0]}'s is "
            f"{mine.tower!r} (layer {mine.select_layer}, {mine.select_feature}), the {names[1]}'s {theirs.tower!r} "
            f"(layer {theirs.select_layer}, {theirs.select_feature})"
        )
    student.adopt_vision_tower(tower)
