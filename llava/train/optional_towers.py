"""Sizes of timm and open_clip towers, for plans: read from these packages, or derived from their model names.

Both packages are an optional extra. A size is given as the configuration of the transformers model with the same
layers.
"""

import json
import re
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import CLIPVisionConfig, PreTrainedConfig, SiglipVisionConfig

WIDTHS = {
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "huge": (1280, 32, 16, 5120),
}
"""Published vision transformers: width, layers, heads, MLP width."""

NAMES = {
    "timm:": re.compile(
        r"vit_(?P<size>base|large|so400m|huge)_patch(?P<patch>\d+)_(?P<family>siglip|clip)\w*?_(?P<image>\d+)\b"
    ),
    "open_clip:": re.compile(
        r"ViT-(?P<size>B|L|SO400M|H)-(?P<patch>\d+)(-quickgelu)?(-(?P<family>SigLIP)2?(-i18n)?)?(-(?P<image>\d{3}))?\b"
    ),
}
LETTERS = {"B": "base", "L": "large", "H": "huge", "SO400M": "so400m"}


def vision_config(family: Any, size: str, image: int, patch: int) -> PreTrainedConfig:
    """The configuration of a vision transformer of a published size.

    Args:
        family: ``SiglipVisionConfig`` or ``CLIPVisionConfig``.
        size: A name in ``WIDTHS``.
        image, patch: Side lengths in pixels.
    """
    width, layers, heads, intermediate = WIDTHS[size]
    return family(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        image_size=image,
        patch_size=patch,
    )


def optional_tower_config(name: str) -> tuple[PreTrainedConfig | None, Literal["read", "published", "unknown"]]:
    """Sizes of a tower and their source; None if they are unknown.

    Args:
        name: ``timm:NAME`` or ``open_clip:NAME[@PRETRAINED]``.
    """
    prefix, model = name.split(":", 1)
    model = model.partition("@")[0]
    if model.startswith("local-dir:"):
        model = _architecture(Path(model.removeprefix("local-dir:")))
    elif ":" not in model:
        read = _from_package(prefix, model)
        if read is not None:
            return read, "read"
    for pattern in NAMES.values():  # weights on the hub are often named after the model of the other package
        found = pattern.search(model)
        if found:
            siglip = (found["family"] or "").lower() == "siglip"
            size = LETTERS.get(found["size"], found["size"])
            family = SiglipVisionConfig if siglip else CLIPVisionConfig
            config = vision_config(family, size, int(found["image"] or 224), int(found["patch"]))
            if "_gap" in model:  # without SigLIP's pooling head
                config.vision_use_head = False
            return config, "published"
    return None, "unknown"


def _architecture(folder: Path) -> str:
    """Name of the model in a timm or open_clip folder; empty if the folder does not name it."""
    try:
        return str(json.loads((folder / "config.json").read_text()).get("architecture", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _from_package(package: str, name: str) -> PreTrainedConfig | None:
    """Sizes according to timm or open_clip; None if it is not installed or does not know the model."""
    try:
        return _from_timm(name) if package == "timm" else _from_open_clip(name)
    except (ImportError, RuntimeError, AttributeError, TypeError, ValueError):  # RuntimeError: torchvision's operators
        return None


def _from_timm(name: str) -> PreTrainedConfig:
    import timm

    with torch.device("meta"):
        model: Any = timm.create_model(name, pretrained=False, num_classes=0)
    block, (patch, _) = model.blocks[0], model.patch_embed.patch_size
    family: Any = CLIPVisionConfig if model.num_prefix_tokens else SiglipVisionConfig
    options = {} if model.num_prefix_tokens else {"vision_use_head": model.attn_pool is not None}
    return family(
        hidden_size=model.embed_dim,
        num_hidden_layers=len(model.blocks),
        num_attention_heads=block.attn.num_heads,
        intermediate_size=block.mlp.fc1.out_features,
        image_size=round(model.patch_embed.num_patches**0.5) * patch,
        patch_size=patch,
        **options,
    )


def _from_open_clip(name: str) -> PreTrainedConfig | None:
    import open_clip

    shape = (open_clip.get_model_config(name) or {}).get("vision_cfg", {})
    if "timm_model_name" in shape:
        return _from_timm(shape["timm_model_name"])
    if not isinstance(shape.get("layers"), int):
        return None
    width = shape["width"]
    return CLIPVisionConfig(
        hidden_size=width,
        num_hidden_layers=shape["layers"],
        num_attention_heads=width // shape.get("head_width", 64),
        intermediate_size=int(width * shape.get("mlp_ratio", 4.0)),
        image_size=shape["image_size"],
        patch_size=shape["patch_size"],
    )
