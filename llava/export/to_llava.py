"""Merging a checkpoint in parts (LoRA adapter, projector) into one full checkpoint in LLaVA's layout."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from llava.inference.checkpoint import load
from llava.model.protocol import vision_tower_of
from llava.model.vision_tower.keep import keep_tower


def merge_to_llava(
    model_path: str, output: Path, model_base: str | None = None, dtype: torch.dtype | None = None
) -> None:
    """Write weights, configuration, tokenizer and, if it is a local folder, the tower; an adapter is merged into its
    base model.

    Args:
        model_path: Any checkpoint that the loader accepts.
        output: Output folder.
        model_base: Base model, if the checkpoint does not name it.
        dtype: Data type of the written weights; by default the base model's own.
    """
    loaded = load(model_path, model_base, device="cpu", dtype=dtype)
    model = loaded.model
    assert isinstance(model, PreTrainedModel)  # of this package
    model.config.use_cache = True
    model.config.mm_vision_tower = keep_tower(vision_tower_of(model), output)
    model.save_pretrained(output)
    loaded.tokenizer.save_pretrained(output)
    loaded.image_processor.save_pretrained(output)
