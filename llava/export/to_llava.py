"""A checkpoint in parts (a LoRA adapter, a projector) as one whole checkpoint in LLaVA's layout."""

from __future__ import annotations

from pathlib import Path

import torch

from llava.model.builder import load_pretrained_model
from llava.model.vision_tower.keep import keep_tower


def merge_to_llava(
    model_path: str, output: Path, model_base: str | None = None, dtype: torch.dtype | None = None
) -> None:
    """Write weights, configuration, tokenizer and a tower that is a local folder; an adapter is merged into its base
    model.

    Args:
        model_path: any checkpoint that the loader takes.
        output: folder to write.
        model_base: the base model, where the checkpoint does not name it.
        dtype: Data type of the written weights; the base model's own if None.
    """
    tokenizer, model, image_processor, _ = load_pretrained_model(model_path, model_base, torch_dtype=dtype)
    model.config.use_cache = True
    model.config.mm_vision_tower = keep_tower(model.get_vision_tower(), output)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    image_processor.save_pretrained(output)
