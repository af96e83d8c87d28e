"""Weights in 8 or 4 bits through bitsandbytes, for use; training takes whole weights."""

from __future__ import annotations

import importlib.util

import torch
from transformers import BitsAndBytesConfig

from llava.errors import InputError

WHOLE = ["lm_head", "mm_projector", "vision_tower"]
"""Parts that keep their precision: small, or sensitive."""

_SKIPPED = [f".*{part}" for part in WHOLE]
"""The same as transformers matches them: regular expressions from the start of a module's full name."""


def quantization_config(load_8bit: bool, load_4bit: bool, dtype: torch.dtype | str | None) -> BitsAndBytesConfig | None:
    """transformers' settings for a quantised language model; None when neither is asked for.

    Args:
        load_8bit: LLM.int8 (Dettmers et al., 2022).
        load_4bit: NF4 with double quantisation (Dettmers et al., 2023).
        dtype: Data type of the products with 4-bit weights; bfloat16 if it is not a torch dtype.

    Raises:
        InputError: both are asked for, or bitsandbytes is not installed.
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
