"""Vision-language models in LLaVA's format, built on transformers' language models."""

from llava.model.language import (
    LlavaLlamaConfig,
    LlavaLlamaForCausalLM,
    LlavaQwen2Config,
    LlavaQwen2ForCausalLM,
    LlavaQwen3Config,
    LlavaQwen3ForCausalLM,
    language_model_class,
)
from llava.model.vision import share_vision_tower

__all__ = [
    "LlavaLlamaConfig",
    "LlavaLlamaForCausalLM",
    "LlavaQwen2Config",
    "LlavaQwen2ForCausalLM",
    "LlavaQwen3Config",
    "LlavaQwen3ForCausalLM",
    "language_model_class",
    "share_vision_tower",
]
