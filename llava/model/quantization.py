"""Weights in 8 or 4 bits with bitsandbytes, for inference; training uses full weights."""

from __future__ import annotations

import importlib.util

import torch
from transformers import BitsAndBytesConfig

from llava.errors import InputError

WHOLE = ["lm_head", "mm_projector", "vision_tower"]
"""Parts that keep their precision: small, or sensitive."""

_SKIPPED = [f".*{part}" for part in WHOLE]
"""The same as regular expressions, which transformers matches from the start of a module's full name."""


def quantization_config(load_8bit: bool, load_4bit: bool, dtype: torch.dtype | str | None) -> BitsAndBytesConfig | None:
    """transformers' settings for a quantised language model; None if neither is requested.

    Args:
        load_8bit: LLM.int8 (Dettmers et al., 2022).
        load_4bit: NF4 with double quantisation (Dettmers et al., 2023).
        dtype: Data type of the matrix products with 4-bit weights; bfloat16 if it is not a torch dtype.

    Raises:
        InputError: Both are requested, or bitsandbytes is not installed.
    """
    if not load_8bit and not load_4bit:
        return None
    if load_8bit and load_4bit:
        raise InputError("load_8bit and load_4bit exclude each other")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError("8- and 4-bit weights need the package bitsandbytes: pip install 'align-ti[quantized]'")
    if load_8bit:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=_SKIPPED)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype if isinstance(dtype, torch.dtype) else torch.bfloat16,
        llm_int8_skip_modules=_SKIPPED,
    )
