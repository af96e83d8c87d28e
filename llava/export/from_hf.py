"""From transformers' ``LlavaForConditionalGeneration`` to this package's checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoProcessor, LlavaForConditionalGeneration, PreTrainedConfig

from llava.conversation import get_template
from llava.errors import InputError
from llava.export.chat_template import recognise
from llava.export.configs import check_importable, from_hf_config, own_block
from llava.export.pictures import from_hf_image_processor
from llava.export.prompts import save_without_image_token
from llava.export.weights import EMBEDDING, HEAD, from_hf_names
from llava.model.config import TOWER_FOLDER
from llava.model.language import language_model_class
from llava.model.weight_files import check_weight_files

logger = logging.getLogger(__name__)


def import_from_hf(model_path: str, output: Path, version: str | None = None, dtype: torch.dtype | None = None) -> Any:
    """Write a checkpoint that this package can load, as a teacher or as the start of a student.

    The tower is written to ``vision_tower`` next to the weights; ``config.json`` refers to it by that relative path.

    Args:
        model_path: LLaVA in transformers' format, folder or hub name.
        output: Output folder.
        version: Name of the prompt template; by default derived from the chat template.
        dtype: Data type of the written weights; by default the checkpoint's own.

    Returns:
        The written configuration.

    Raises:
        InputError: The path is not such a checkpoint, or the checkpoint is not supported by this package.
    """
    if version is not None:
        get_template(version)
    try:
        config = AutoConfig.from_pretrained(model_path)
    except (OSError, ValueError) as error:
        raise InputError(f"{model_path}: no readable config.json; expected a LLaVA of transformers: {error}") from error
    check_importable(config, model_path)
    image_processor, image_aspect_ratio = from_hf_image_processor(model_path, config.vision_config.model_type)
    try:
        processor = AutoProcessor.from_pretrained(model_path)
    except (OSError, ValueError) as error:
        raise InputError(f"{model_path}: no readable processor (tokenizer, processor_config.json): {error}") from error
    template = version or own_block(config).get("mm_template") or recognise(processor)
    if template is None:
        logger.warning(
            "the chat template matches none of this package's: give the closest with --version, here or in training"
        )
    check_weight_files(model_path)
    loaded: Any = LlavaForConditionalGeneration.from_pretrained(
        model_path, dtype=dtype or "auto", output_loading_info=True
    )
    theirs, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(f"{model_path} lacks {len(missing)} weights, among them {missing[0]}; is it complete?")

    output.mkdir(parents=True, exist_ok=True)
    tokenizer = save_without_image_token(processor.tokenizer, config.image_token_index, output)
    made_config = from_hf_config(config, image_aspect_ratio, template)
    model = convert(theirs, made_config, original_rows(config, len(tokenizer)))
    model.generation_config = theirs.generation_config
    model.save_pretrained(output)
    theirs.model.vision_tower.save_pretrained(output / TOWER_FOLDER)
    image_processor.save_pretrained(output / TOWER_FOLDER)
    logger.info("prompt template: %s; image_aspect_ratio: %s", template, image_aspect_ratio)
    return made_config


def original_rows(config: PreTrainedConfig, tokens: int) -> int:
    """Rows of the embedding before an export of this package added one for ``<image>``; all rows for other
    checkpoints."""
    rows = config.text_config.vocab_size
    recorded = own_block(config).get("vocabulary_rows", rows)
    return recorded if tokens <= recorded <= config.image_token_index else rows


def convert(theirs: LlavaForConditionalGeneration, config: PreTrainedConfig, rows: int) -> Any:
    """The model converted to this package's class, without its tower; weights are shared, not copied.

    Args:
        theirs: Transformers' model.
        config: This package's configuration; its vocabulary size is set to ``rows``.
        rows: Number of rows of embedding and head to keep.
    """
    weights = from_hf_names(theirs.state_dict())
    for name in (EMBEDDING, HEAD):
        weights[name] = weights[name][:rows]
    config.vocab_size = rows
    with torch.device("meta"):
        model = language_model_class(config.model_type)(config)
    model.load_state_dict(weights, strict=True, assign=True)
    model.tie_weights()
    model.config.dtype = theirs.dtype
    return model
