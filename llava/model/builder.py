"""Load a checkpoint for use: tokenizer, model, image processor, context length.

The kind of a folder is determined by its ``config.json`` and its files, never by its name.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_PATCH_TOKEN
from llava.errors import InputError
from llava.model.checkpoint import has_weights, load_projector
from llava.model.config import OPTIONAL_TOWERS, VisionSettings, check_own_form, to_llava_spelling
from llava.model.language import LANGUAGE_MODELS, LlavaForCausalLM, language_model_class
from llava.model.lora import ADAPTER_CONFIG, base_of, merge_lora
from llava.model.protocol import vision_tower_of
from llava.model.quantization import quantization_config
from llava.model.vision_tower import anchor_tower
from llava.model.vision_tower.hf import resolve_tower
from llava.model.vision_tower.processors import ImageProcessor
from llava.model.weight_files import PROJECTOR_FILE

logger = logging.getLogger(__name__)

DEFAULT_CONTEXT = 2048
"""Default context length, as in LLaVA."""


CARRIED_KEYS = ("mm_", "image_aspect_ratio", "tokenizer_", "max_sequence_length")
"""Key prefixes of a projector's config.json that are not part of the language model's."""


def load_pretrained_model(
    model_path: str | Path,
    model_base: str | Path | None = None,
    model_name: str | None = None,
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: Any = None,
    torch_dtype: torch.dtype | str | None = None,
    multimodal: bool = True,
    attn_implementation: str | None = None,
    **kwargs: Any,
) -> tuple[PreTrainedTokenizerBase, LlavaForCausalLM, ImageProcessor, int]:
    """Load a vision-language model with LLaVA's or the Align-TI authors' weight names.

    Args:
        model_path: Full checkpoint (folder or hub name), a folder with ``mm_projector.bin`` and ``config.json``, or
            one with a LoRA adapter, which is merged into its base model.
        model_base: Language model of a projector-only folder or an adapter (which usually names its own); not used
            otherwise.
        model_name: Accepted for compatibility with LLaVA; not used.
        load_8bit, load_4bit: Quantise the language model's weights with bitsandbytes.
        device_map: As in transformers; the CPU by default.
        torch_dtype: Dtype of all weights; by default the checkpoint's own.
        multimodal: Accepted for compatibility with LLaVA; not used.
        attn_implementation: As in transformers.
        kwargs: Passed to ``from_pretrained``.

    Returns:
        Tokenizer, model in evaluation mode, image processor, context length in tokens.

    Raises:
        InputError: The path is not a LLaVA checkpoint, is incomplete, or is not supported.
    """
    path = str(model_path)
    folder = Path(path)
    settings = read_checkpoint_config(path)
    options: dict[str, Any] = {"device_map": device_map, "dtype": torch_dtype or "auto", **kwargs}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    model_class = language_model_class(settings["model_type"])
    quantized = quantization_config(load_8bit, load_4bit, torch_dtype)
    if quantized is not None:
        options["quantization_config"] = quantized
        if (folder / ADAPTER_CONFIG).is_file():
            raise InputError(
                f"{path} is a LoRA adapter, which is merged into whole weights: write the merged checkpoint with "
                "`python -m llava.export --to llava` and load that in 8 or 4 bits"
            )

    if (folder / ADAPTER_CONFIG).is_file():
        tokenizer_path, model = _load_adapter(folder, model_base, model_class, options)
    elif folder.is_dir() and not has_weights(folder):
        tokenizer_path, model = _load_on_base(folder, model_base, model_class, options)
    else:
        if model_base is not None:
            logger.warning("%s is a full checkpoint: the base model %s is not used", path, model_base)
        tokenizer_path, model = path, _load_full(path, model_class, options)

    tokenizer = _load_tokenizer(tokenizer_path)
    _add_image_tokens(tokenizer, model)
    if model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.eval()
    return tokenizer, model, vision_tower_of(model).image_processor, context_length(model.config)


def context_length(config: PreTrainedConfig) -> int:
    """Context length of a checkpoint: the first of LLaVA's keys that is set."""
    for key in ("max_sequence_length", "tokenizer_model_max_length", "max_position_embeddings"):
        value = getattr(config, key, None)
        if value:
            return int(value)
    return DEFAULT_CONTEXT


def read_checkpoint_config(path: str) -> dict[str, Any]:
    """A checkpoint's config.json with LLaVA's keys, checked to be that of a vision-language model.

    Args:
        path: Folder or hub name.

    Raises:
        InputError: There is no readable config.json, or it is of another kind of model.
    """
    try:
        settings, _ = PreTrainedConfig.get_config_dict(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no readable config.json; expected a LLaVA checkpoint: {error}") from error
    if not settings:
        raise InputError(f"{path}: no readable config.json; expected a LLaVA checkpoint")
    settings = to_llava_spelling(settings)
    kind = settings.get("model_type")
    check_own_form(kind, path)
    if kind not in LANGUAGE_MODELS:
        raise InputError(
            f"{path} is a checkpoint of model type {kind!r}; expected a LLaVA checkpoint of type "
            f"{', '.join(LANGUAGE_MODELS)}"
        )
    if not settings.get("mm_vision_tower"):
        raise InputError(f"{path}: its config.json names no vision tower (mm_vision_tower)")
    return settings


def _load_full(path: str, model_class: Any, options: dict[str, Any]) -> LlavaForCausalLM:
    """A full checkpoint; transformers would only warn about missing weights and initialise them randomly."""
    model, report = model_class.from_pretrained(path, output_loading_info=True, **options)
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(
            f"{path} lacks {len(missing)} weights that its config.json calls for, among them {missing[0]}; "
            "is it complete?"
        )
    return model


def _load_on_base(
    folder: Path, model_base: str | Path | None, model_class: Any, options: dict[str, Any]
) -> tuple[str, LlavaForCausalLM]:
    """A projector of the first training stage, attached to the language model it was trained with."""
    if not (folder / PROJECTOR_FILE).is_file():
        raise InputError(f"{folder} has a config.json but neither weights nor {PROJECTOR_FILE}; is it complete?")
    if model_base is None:
        raise InputError(
            f"{folder} contains only a projector ({PROJECTOR_FILE}): give the language model it was "
            "trained with as model_base"
        )
    model = model_class.from_pretrained(str(model_base), **options)
    _attach_vision(model, folder, model_class)
    load_projector(model, folder)
    return str(model_base), model


def _load_adapter(
    folder: Path, model_base: str | Path | None, model_class: Any, options: dict[str, Any]
) -> tuple[str, LlavaForCausalLM]:
    """A LoRA adapter merged into the base model it was trained on."""
    base = base_of(folder, model_base)
    try:
        model = model_class.from_pretrained(base, **options)
    except OSError as error:
        raise InputError(
            f"{folder} is a LoRA adapter of {base!r}, which cannot be loaded ({error}); give the base model as "
            "model_base"
        ) from error
    _attach_vision(model, folder, model_class)
    merge_lora(model, folder)
    has_tokenizer = any((folder / name).is_file() for name in ("tokenizer_config.json", "tokenizer.json"))
    return str(folder) if has_tokenizer else base, model


def _attach_vision(model: LlavaForCausalLM, folder: Path, model_class: Any) -> None:
    """Attach tower and projector according to the configuration in a folder, with its other additions to the base
    model's configuration."""
    config = model_class.config_class.from_pretrained(folder)
    anchor_tower(config, folder)
    if not config.mm_vision_tower.startswith(OPTIONAL_TOWERS):
        resolve_tower(config.mm_vision_tower, str(folder))  # its message names this folder, not the base model's
    for key, value in config.to_dict().items():
        if key.startswith(CARRIED_KEYS):
            setattr(model.config, key, value)
    vision = VisionSettings.from_config(config)
    assert vision.tower is not None
    model.initialize_vision_modules(vision.tower, vision.projector_type, vision.select_layer, vision.select_feature)


def _load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no readable tokenizer next to the checkpoint: {error}") from error


def _add_image_tokens(tokenizer: PreTrainedTokenizerBase, model: LlavaForCausalLM) -> None:
    """Add the image tokens that the config requires and the tokenizer lacks.

    An embedding that already has rows for them is left unchanged (Qwen's has spare rows); it is never shrunk.
    """
    wanted = [DEFAULT_IMAGE_PATCH_TOKEN] if getattr(model.config, "mm_use_im_patch_token", False) else []
    if getattr(model.config, "mm_use_im_start_end", False):
        wanted += [DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN]
    if not wanted or not tokenizer.add_tokens(wanted, special_tokens=True):
        return
    logger.warning("added %s to the tokenizer: the checkpoint's config asks for them", wanted)
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer))
