"""Conversion of a model's configuration between this package's format and transformers'."""

from __future__ import annotations

import copy
from typing import Any

from transformers import AutoConfig, LlavaConfig, PreTrainedConfig

from llava.errors import InputError
from llava.model.builder import CARRIED_KEYS
from llava.model.config import OPTIONAL_TOWERS, TOWER_FOLDER, VisionSettings
from llava.model.language import LANGUAGE_MODELS, language_model_class
from llava.model.vision_tower.hf import HFVisionTower

PROJECTOR = "mlp2x_gelu"
TOWERS = {"siglip_vision_model": False, "clip_vision_model": True}
"""``model_type`` of the towers that both formats support -> whether they have a class token."""
OWN_BLOCK = "align_ti"
"""Key of config.json under which an export keeps settings that transformers' format lacks."""
DERIVED = (
    *("mm_vision_tower", "mm_image_tower", "mm_video_tower", "mm_hidden_size", "mm_projector_type"),
    *("mm_vision_select_layer", "mm_vision_select_feature", "mm_patch_merge_type", "image_aspect_ratio"),
    "tokenizer_padding_side",
)
"""Keys not kept there: transformers' own keys contain the same, or they name a local folder."""


def check_exportable(settings: VisionSettings, path: str) -> None:
    """Reject what transformers' LLaVA does not support.

    Raises:
        InputError: The tower is from timm or open_clip, or the projector is not ``mlp2x_gelu``.
    """
    if settings.tower and settings.tower.startswith(OPTIONAL_TOWERS):
        raise InputError(
            f"{path} has the vision tower {settings.tower!r}, which needs the package of that name; transformers' "
            "LLaVA runs SigLIP and CLIP towers only. Use the checkpoint with this package, or train with one of those"
        )
    if settings.projector_type != PROJECTOR:
        raise InputError(
            f"{path} has a projector of type {settings.projector_type!r}; transformers' LLaVA has one shape only, two "
            f"linear layers with GELU between ({PROJECTOR}). Use the checkpoint with this package, or train with "
            f"--mm_projector_type {PROJECTOR}"
        )


def plain_language_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The language model's own configuration, without LLaVA's keys."""
    kind = config.model_type.removeprefix("llava_")
    known = set(AutoConfig.for_model(kind).to_dict()) - {
        "model_type",
        "architectures",
        "transformers_version",
        "_name_or_path",
    }
    return AutoConfig.for_model(kind, **{key: value for key, value in config.to_dict().items() if key in known})


def to_hf_config(config: PreTrainedConfig, tower: HFVisionTower, image_token_id: int, rows: int) -> LlavaConfig:
    """transformers' configuration of a model of this package.

    Args:
        config: This package's configuration.
        tower: The loaded tower.
        image_token_id: Id of ``<image>`` in the exported tokenizer.
        rows: Number of rows of the exported embedding.
    """
    settings = VisionSettings.from_config(config)
    text = plain_language_config(config)
    text.vocab_size = rows
    drops_class_token = tower.has_class_token and settings.select_feature == "patch"
    # 0, the patch embedding, is written as an index from the end: transformers takes a plain 0 for "no hidden states".
    layer = settings.select_layer or -1 - tower.vision_tower.config.num_hidden_layers
    vision = copy.deepcopy(tower.vision_tower.config)
    vision.name_or_path = text.name_or_path = ""  # local folders are meaningless on other machines
    made = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=image_token_id,
        image_seq_length=tower.num_patches,
        projector_hidden_act="gelu",
        vision_feature_select_strategy="default" if drops_class_token else "full",
        vision_feature_layer=layer,
        tie_word_embeddings=text.tie_word_embeddings,
    )
    carried = {key: value for key, value in config.to_dict().items() if key.startswith(CARRIED_KEYS)}
    block = {key: value for key, value in carried.items() if key not in DERIVED}
    setattr(made, OWN_BLOCK, {**block, "vocabulary_rows": config.vocab_size})
    return made


def check_importable(config: PreTrainedConfig, path: str) -> None:
    """Reject what this package does not support.

    Raises:
        InputError: The message names what was found and what is supported.
    """
    if config.model_type != "llava":
        raise InputError(f"{path} is of model type {config.model_type!r}; expected transformers' 'llava'")
    found = f"{path}: its config.json has"
    tower, text = config.vision_config.model_type, config.text_config.model_type
    if tower not in TOWERS:
        raise InputError(f"{found} a vision tower of type {tower!r}; expected one of {', '.join(TOWERS)}")
    if f"llava_{text}" not in LANGUAGE_MODELS:
        known = ", ".join(key.removeprefix("llava_") for key in LANGUAGE_MODELS)
        raise InputError(f"{found} a language model of type {text!r}; expected one of {known}")
    if not isinstance(config.vision_feature_layer, int):
        raise InputError(f"{found} vision_feature_layer {config.vision_feature_layer}; one layer only is supported")
    if config.projector_hidden_act != "gelu" or not config.multimodal_projector_bias:
        raise InputError(
            f"{found} a projector with {config.projector_hidden_act!r} and bias "
            f"{config.multimodal_projector_bias}; expected 'gelu' and True ({PROJECTOR})"
        )
    if not TOWERS[tower] and config.vision_feature_select_strategy == "default":
        raise InputError(
            f"{found} vision_feature_select_strategy 'default' with a SigLIP tower, which would drop the first patch "
            "(SigLIP has no class token); only 'full' is supported there"
        )


def from_hf_config(config: PreTrainedConfig, image_aspect_ratio: str, template: str | None) -> Any:
    """This package's configuration of a model in transformers' format."""
    text = config.text_config.to_dict()
    for key in ("model_type", "architectures", "transformers_version", "_name_or_path"):
        text.pop(key, None)
    text["tie_word_embeddings"] = config.tie_word_embeddings
    has_class_token = TOWERS[config.vision_config.model_type]
    keeps_class_token = has_class_token and config.vision_feature_select_strategy == "full"
    vision = {
        "mm_vision_tower": TOWER_FOLDER,
        "mm_hidden_size": config.vision_config.hidden_size,
        "mm_projector_type": PROJECTOR,
        "mm_vision_select_layer": config.vision_feature_layer,
        "mm_vision_select_feature": "cls_patch" if keeps_class_token else "patch",
        "mm_patch_merge_type": "flat",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
        "tokenizer_padding_side": "right",
    }
    carried = {key: value for key, value in own_block(config).items() if key.startswith(CARRIED_KEYS)}
    carried["image_aspect_ratio"] = image_aspect_ratio
    if template is not None:
        carried["mm_template"] = template
    return language_model_class(config.text_config.model_type).config_class(**{**text, **vision, **carried})


def own_block(config: PreTrainedConfig) -> dict[str, Any]:
    """The settings that an export of this package added to config.json; empty for other checkpoints."""
    return getattr(config, OWN_BLOCK, None) or {}
