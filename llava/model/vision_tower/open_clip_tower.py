"""The image half of open_clip's models (extra ``towers``)."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from llava.errors import InputError
from llava.model.vision_tower.base import VisionTower
from llava.model.vision_tower.optional import block_index, import_package, learn_sizes, square_processor

PREFIX = "open_clip:"


class OpenClipVisionTower(VisionTower):
    """An open_clip vision transformer, named ``open_clip:NAME@PRETRAINED``.

    PRETRAINED is one of open_clip's tags or a weight file. ``open_clip:hf-hub:OWNER/NAME`` and
    ``open_clip:local-dir:FOLDER`` include their own weights and need no PRETRAINED.
    """

    def _load(self, dtype: torch.dtype | None) -> None:
        open_clip: Any = import_package("open_clip", self.name)
        name, _, pretrained = self.name.removeprefix(PREFIX).partition("@")
        if not pretrained and not name.startswith(("hf-hub:", "local-dir:")):
            raise InputError(
                f"the vision tower {self.name!r} names no weights: write open_clip:{name}@PRETRAINED with "
                "one of open_clip's tags or a weight file"
            )
        try:
            visual = open_clip.create_model(name, pretrained=pretrained or None, require_pretrained=True).visual
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise InputError(f"open_clip cannot load the vision tower {self.name!r}: {error}") from error
        if hasattr(visual, "trunk"):  # a timm model inside
            blocks = getattr(visual.trunk, "blocks", None)
        else:
            blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
        if blocks is None:
            raise InputError(
                f"the vision tower {self.name!r} is a {type(visual).__name__}: expected a vision "
                "transformer, whose blocks give one feature a patch"
            )
        self.vision_tower = visual
        self.block = block_index(self, len(blocks))
        data = visual.preprocess_cfg
        size = data["size"] if isinstance(data["size"], (tuple, list)) else (data["size"], data["size"])
        self.image_processor = square_processor(self.name, size, data["mean"], data["std"], data["interpolation"])
        learn_sizes(self)

    def _encode(self, images: Tensor) -> Tensor:
        found = self.vision_tower.forward_intermediates(
            images,
            indices=[self.block],
            intermediates_only=True,
            normalize_intermediates=False,
            stop_early=True,
            output_fmt="NLC",
            output_extra_tokens=self.settings.select_feature == "cls_patch",
        )
        patches = found["image_intermediates"][0]
        prefix = found.get("image_intermediates_prefix")
        return patches if prefix is None else torch.cat([prefix[0], patches], dim=1)
