"""The language models, and the lookup of the class for a config's ``model_type``."""

from __future__ import annotations

from typing import Any

from llava.errors import InputError
from llava.model.language.llama import LlavaLlamaConfig, LlavaLlamaForCausalLM
from llava.model.language.qwen2 import LlavaQwen2Config, LlavaQwen2ForCausalLM
from llava.model.language.qwen3 import LlavaQwen3Config, LlavaQwen3ForCausalLM

__all__ = [
    "LANGUAGE_MODELS",
    "LlavaForCausalLM",
    "LlavaLlamaConfig",
    "LlavaLlamaForCausalLM",
    "LlavaQwen2Config",
    "LlavaQwen2ForCausalLM",
    "LlavaQwen3Config",
    "LlavaQwen3ForCausalLM",
    "language_model_class",
]

LlavaForCausalLM = LlavaLlamaForCausalLM | LlavaQwen2ForCausalLM | LlavaQwen3ForCausalLM
"""Any of this package's models."""

LANGUAGE_MODELS: dict[str, type[LlavaForCausalLM]] = {
    "llava_qwen2": LlavaQwen2ForCausalLM,
    "llava_qwen3": LlavaQwen3ForCausalLM,
    "llava_llama": LlavaLlamaForCausalLM,
}
"""``model_type`` -> class; to add a language model, write one file and add a line here and in ``LlavaForCausalLM``."""


def language_model_class(model_type: str) -> Any:
    """The class for ``llava_qwen2`` or for the plain ``qwen2``, and likewise for the others.

    Raises:
        InputError: The model type is unknown; the message lists the known ones.
    """
    name = model_type if model_type.startswith("llava_") else f"llava_{model_type}"
    if name not in LANGUAGE_MODELS:
        known = ", ".join(f"{key.removeprefix('llava_')} / {key}" for key in LANGUAGE_MODELS)
        raise InputError(f"model type {model_type!r} is not supported; expected one of {known}")
    return LANGUAGE_MODELS[name]
