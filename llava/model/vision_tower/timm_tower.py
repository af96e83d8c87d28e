"""Vision transformers from timm (extra ``towers``)."""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from llava.errors import InputError
from llava.model.vision_tower.base import VisionTower
from llava.model.vision_tower.optional import block_index, import_package, learn_sizes, square_processor

PREFIX = "timm:"


class TimmVisionTower(VisionTower):
    """A timm vision transformer, named ``timm:NAME``.

    NAME is any name that ``timm.create_model`` accepts: ``vit_so400m_patch14_siglip_384``, ``hf-hub:OWNER/NAME`` or
    ``local-dir:FOLDER``.
    """

    def _load(self, dtype: torch.dtype | None) -> None:
        timm: Any = import_package("timm", self.name)
        try:
            model = timm.create_model(self.name.removeprefix(PREFIX), pretrained=True, num_classes=0)
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise InputError(f"timm cannot load the vision tower {self.name!r}: {error}") from error
        if not hasattr(model, "blocks") or not hasattr(model, "forward_intermediates"):
            raise InputError(
                f"the vision tower {self.name!r} is a {type(model).__name__}: expected a vision transformer, "
                "whose blocks give one feature a patch"
            )
        self.vision_tower = model
        self.block = block_index(self, len(model.blocks))
        data = timm.data.resolve_model_data_config(model)
        self.image_processor = square_processor(
            self.name, data["input_size"][1:], data["mean"], data["std"], data["interpolation"]
        )
        learn_sizes(self)

    def _encode(self, images: Tensor) -> Tensor:
        with_class = self.settings.select_feature == "cls_patch" and self.vision_tower.num_prefix_tokens > 0
        found = self.vision_tower.forward_intermediates(
            images,
            indices=[self.block],
            intermediates_only=True,
            return_prefix_tokens=with_class,
            norm=False,
            stop_early=True,
            output_fmt="NLC",
        )[0]
        if with_class:
            patches, prefix = found
            return torch.cat([prefix, patches], dim=1)
        return found
