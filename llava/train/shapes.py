"""Shapes of the models that the recipes name, for plans made where no model hub can be reached.

Facts of the models' published ``config.json`` files; a configuration that can be read always comes first.
"""

from typing import Any

from transformers import (
    AutoConfig,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SiglipVisionConfig,
)

from llava.errors import InputError


def _qwen2(hidden: int, layers: int, heads: int, kv: int, wide: int, rows: int, tied: bool) -> PreTrainedConfig:
    return Qwen2Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        intermediate_size=wide,
        vocab_size=rows,
        tie_word_embeddings=tied,
    )


def _qwen3(hidden: int, layers: int, heads: int, wide: int, tied: bool) -> PreTrainedConfig:
    return Qwen3Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=wide,
        vocab_size=151936,
        tie_word_embeddings=tied,
    )


def _llama(hidden: int, layers: int, heads: int, wide: int) -> PreTrainedConfig:
    return LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=wide,
        vocab_size=32000,
        tie_word_embeddings=False,
    )


SHAPES: dict[str, Any] = {
    "Qwen/Qwen2-7B": lambda: _qwen2(3584, 28, 28, 4, 18944, 152064, False),
    "Qwen/Qwen2-1.5B": lambda: _qwen2(1536, 28, 12, 2, 8960, 151936, True),
    "Qwen/Qwen2-0.5B": lambda: _qwen2(896, 24, 14, 2, 4864, 151936, True),
    "Qwen/Qwen3-8B": lambda: _qwen3(4096, 36, 32, 12288, False),
    "Qwen/Qwen3-4B": lambda: _qwen3(2560, 36, 32, 9728, True),
    "Qwen/Qwen3-1.7B": lambda: _qwen3(2048, 28, 16, 6144, True),
    "Qwen/Qwen3-0.6B": lambda: _qwen3(1024, 28, 16, 3072, True),
    "lmsys/vicuna-7b-v1.5": lambda: _llama(4096, 32, 32, 11008),
    "mtgv/MobileLLaMA-1.4B-Chat": lambda: _llama(2048, 24, 16, 5632),
    "google/siglip-so400m-patch14-384": lambda: SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
    ),
}
SAME_SHAPE = {
    "Qwen/Qwen2-7B-Instruct": "Qwen/Qwen2-7B",
    "Qwen/Qwen2-1.5B-Instruct": "Qwen/Qwen2-1.5B",
    "Qwen/Qwen2-0.5B-Instruct": "Qwen/Qwen2-0.5B",
    "Qwen/Qwen3-8B-Base": "Qwen/Qwen3-8B",
    "Qwen/Qwen3-4B-Base": "Qwen/Qwen3-4B",
    "Qwen/Qwen3-1.7B-Base": "Qwen/Qwen3-1.7B",
    "Qwen/Qwen3-0.6B-Base": "Qwen/Qwen3-0.6B",
    "mtgv/MobileLLaMA-1.4B-Base": "mtgv/MobileLLaMA-1.4B-Chat",
}
"""Base models and their post-trained forms, which are shaped alike."""

KNOWN: dict[str, Any] = {**SHAPES, **{name: SHAPES[other] for name, other in SAME_SHAPE.items()}}


def read_config(name: str) -> tuple[PreTrainedConfig, bool]:
    """A model's configuration, and whether it comes from the table above because it could not be read.

    Raises:
        InputError: it can neither be read nor is it known here.
    """
    try:
        return AutoConfig.from_pretrained(name), False
    except (OSError, ValueError) as error:
        if name in KNOWN:
            return KNOWN[name](), True
        raise InputError(f"no configuration of {name!r} ({error}), and its shape is not among those known") from error
