"""From this package's checkpoint to transformers' ``LlavaForConditionalGeneration``."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    LlavaForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from llava.conversation import Template, get_template
from llava.errors import InputError
from llava.export.configs import check_exportable, to_hf_config
from llava.export.pictures import to_hf_image_processor
from llava.export.prompts import build_processor
from llava.export.weights import EMBEDDING, HEAD, grow, to_hf_names
from llava.inference.checkpoint import load
from llava.inference.end_of_turn import EndOfTurn
from llava.model.config import VisionSettings, to_llava_spelling
from llava.model.protocol import VisionLanguageModel, vision_tower_of
from llava.model.vision_tower import VisionTower
from llava.model.vision_tower.hf import HFVisionTower

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """Facts about an export, for the log and the card.

    Attributes:
        template: Name of the prompt template.
        stop_string: End-of-turn string if it is not a single token, which servers need to know; otherwise None.
        starts_with_bos: Whether the tokenizer adds a BOS token, which servers need to know.
    """

    template: str
    stop_string: str | None
    starts_with_bos: bool


def export_to_hf(
    model_path: str,
    output: Path,
    version: str | None = None,
    model_base: str | None = None,
    dtype: torch.dtype | None = None,
) -> Exported:
    """Write a checkpoint in transformers' format: model, processor, chat template, generation settings.

    Args:
        model_path: Finished checkpoint (folder or hub name), or a projector-only folder.
        output: Output folder.
        version: Name of the prompt template; by default the checkpoint's own (``mm_template``).
        model_base: Language model of a projector-only folder.
        dtype: Data type of the written weights; by default the checkpoint's own.

    Raises:
        InputError: The checkpoint is not supported by transformers, or the template is unknown.
    """
    check_early(model_path)
    loaded = load(model_path, model_base, device="cpu", dtype=dtype)
    tokenizer, model = loaded.tokenizer, loaded.model
    assert isinstance(model, PreTrainedModel)  # of this package
    config, tower = model.config, vision_tower_of(model)
    template = get_template(version or template_of(config, model_path))
    whole = whole_tower(tower)
    image_processor = to_hf_image_processor(
        tower.image_processor, getattr(config, "image_aspect_ratio", None), tower.image_size
    )
    processor = build_processor(tokenizer, tower, image_processor, template, config)
    made = convert(model, whole, tokenizer, processor.image_token_id)
    made.generation_config, stop_string = generation_settings(template, tokenizer, model)
    output.mkdir(parents=True, exist_ok=True)
    made.save_pretrained(output)
    processor.save_pretrained(output)
    image_processor.save_pretrained(output)  # preprocessor_config.json, for readers older than transformers 5
    starts_with_bos = tokenizer.bos_token_id is not None and tokenizer("a").input_ids[0] == tokenizer.bos_token_id
    return Exported(template.name, stop_string, starts_with_bos)


def check_early(model_path: str) -> None:
    """Reject what cannot be exported before anything large is read.

    Raises:
        InputError: Transformers' LLaVA does not support the tower or projector.
    """
    try:
        settings, _ = PreTrainedConfig.get_config_dict(model_path)
    except (OSError, ValueError):
        return  # the loader reports what is wrong
    if settings.get("mm_vision_tower") or settings.get("mm_image_tower"):
        namespace = type("Settings", (), to_llava_spelling(settings))
        check_exportable(VisionSettings.from_config(namespace), model_path)


def template_of(config: PreTrainedConfig, model_path: str) -> str:
    """The prompt template named by a checkpoint.

    Raises:
        InputError: It names none.
    """
    name = getattr(config, "mm_template", None)
    if name is None:
        raise InputError(
            f"{model_path} does not say which prompt template it was trained with (mm_template in config.json); give "
            "--version, for example --version v1 for LLaVA-1.5 or --version qwen for the Align-TI releases"
        )
    return name


def whole_tower(tower: VisionTower) -> HFVisionTower:
    """A model's tower loaded with all its layers; the model itself only runs it up to the selected layer."""
    if not isinstance(tower, HFVisionTower):
        raise InputError(f"the vision tower {tower.name!r} is not a SigLIP or CLIP model of transformers")
    whole = HFVisionTower(tower.name, replace(tower.settings, select_layer=-1), tower.checkpoint_folder)
    whole.load_model(dtype=tower.dtype)
    if tower.carried_by is not None:
        whole.load_carried(tower.carried_by)
    return whole


def convert(
    model: PreTrainedModel, tower: HFVisionTower, tokenizer: PreTrainedTokenizerBase, image_token_id: int
) -> LlavaForConditionalGeneration:
    """The model converted to transformers' class; weights are shared, not copied.

    Args:
        model: Model of this package.
        tower: Its tower with all layers.
        tokenizer: Tokenizer before ``<image>`` was added.
        image_token_id: Id in the exported tokenizer. The embedding grows if it has no row for it.
    """
    weights = model.state_dict()
    rows = max(len(weights[EMBEDDING]), image_token_id + 1)
    weights[EMBEDDING] = grow(weights[EMBEDDING], rows, len(tokenizer))
    tied = model.config.tie_word_embeddings
    weights[HEAD] = weights[EMBEDDING] if tied else grow(weights[HEAD], rows, len(tokenizer))
    with torch.device("meta"):
        made = LlavaForConditionalGeneration(to_hf_config(model.config, tower, image_token_id, rows))
    made.load_state_dict(to_hf_names(weights, tower.vision_tower.state_dict()), strict=True, assign=True)
    made.tie_weights()
    made.config.dtype = model.dtype
    return made


def generation_settings(
    template: Template, tokenizer: PreTrainedTokenizerBase, model: VisionLanguageModel
) -> tuple[GenerationConfig, str | None]:
    """Greedy decoding up to the end of a turn, as in this package's evaluation.

    Returns:
        The settings, and the end-of-turn string if it is not a single token.
    """
    stop = EndOfTurn.of(template, tokenizer, model)
    settings = GenerationConfig(
        bos_token_id=model.generation_config.bos_token_id,
        eos_token_id=stop.ids[0] if len(stop.ids) == 1 else stop.ids or None,
        pad_token_id=stop.pad_id,
        do_sample=False,
    )
    if stop.is_token or not stop.text:
        return settings, None
    logger.warning(
        "the prompt template ends a turn with %r, which is not a single token of this tokenizer: pass "
        "stop_strings=[%r], tokenizer=... to generate(), and the stop string to servers",
        stop.text,
        stop.text,
    )
    return settings, stop.text
