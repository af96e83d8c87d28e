"""Settings of ``generate`` that evaluation, chat and distillation share."""

from types import MappingProxyType

GREEDY = MappingProxyType(
    {
        "do_sample": False,
        "num_beams": 1,
        "temperature": None,
        "top_p": None,
        "top_k": None,
        "repetition_penalty": 1.0,  # chat models set one in their generation settings
        "no_repeat_ngram_size": 0,
        "use_cache": True,
    }
)
"""Greedy decoding, overriding a checkpoint's own generation settings."""
