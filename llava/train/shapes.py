"""Model configurations for plans: read from files, or built in for well-known published models.

The built-in values are from the models' published ``config.json`` files. A folder or a copy in the hub's cache comes
first, then the built-in values, and the hub last, so that a plan of a known model never waits for the network.
"""

from functools import cache
from pathlib import Path
from typing import Any, Literal

import httpx
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from transformers import (
    AutoConfig,
    CLIPVisionConfig,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SiglipVisionConfig,
)

from llava.errors import InputError
from llava.train.optional_towers import optional_tower_config, vision_config

Source = Literal["read", "published", "unknown"]
"""Source of a configuration: a file, the built-in table, or unknown."""

PROBE_SECONDS = 3.0
"""Timeout for the hub's first response, in seconds."""


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
    "google/siglip-so400m-patch14-384": lambda: vision_config(SiglipVisionConfig, "so400m", 384, 14),
    "google/siglip-large-patch16-384": lambda: vision_config(SiglipVisionConfig, "large", 384, 16),
    "google/siglip-base-patch16-224": lambda: vision_config(SiglipVisionConfig, "base", 224, 16),
    "openai/clip-vit-large-patch14-336": lambda: vision_config(CLIPVisionConfig, "large", 336, 14),
    "openai/clip-vit-large-patch14": lambda: vision_config(CLIPVisionConfig, "large", 224, 14),
    "openai/clip-vit-base-patch16": lambda: vision_config(CLIPVisionConfig, "base", 224, 16),
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
"""Base models and their post-trained versions, which have the same shape."""

KNOWN: dict[str, Any] = {**SHAPES, **{name: SHAPES[other] for name, other in SAME_SHAPE.items()}}


@cache
def hub_answers() -> bool:
    """Whether the model hub can be reached; checked once per process, with a short timeout.

    The hub's own client retries six times, half a minute for each file.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        return httpx.head(constants.ENDPOINT, timeout=PROBE_SECONDS, follow_redirects=True).status_code < 500
    except (httpx.HTTPError, httpx.InvalidURL, OSError):
        return False


def read_config(name: str) -> tuple[PreTrainedConfig, Source]:
    """A model's configuration and its source.

    Args:
        name: Folder or hub name.

    Raises:
        InputError: It can neither be read nor is it built in.
    """
    if Path(name).is_dir():
        return _from_pretrained(name), "read"
    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError as error:
        raise InputError(f"no configuration of {name!r}: there is no such folder, and it is no hub name") from error
    if isinstance(cached, str):
        return _from_pretrained(str(Path(cached).parent)), "read"
    if name in KNOWN:
        return KNOWN[name](), "published"
    if not hub_answers():
        raise InputError(
            f"no configuration of {name!r}: it is no folder, not in the hub's cache, {constants.ENDPOINT} cannot be "
            f"reached, and its shape is not among those known ({', '.join(KNOWN)})"
        )
    return _from_pretrained(name), "read"


def _from_pretrained(name: str) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(f"no configuration of {name!r} ({error}); expected a model folder or hub name") from error


def read_tower_config(name: str) -> tuple[PreTrainedConfig | None, Source]:
    """A vision tower's configuration and its source; None for a timm or open_clip tower of unknown size.

    Raises:
        InputError: A tower of transformers whose configuration can neither be read nor is built in.
    """
    if name.startswith(("timm:", "open_clip:")):
        return optional_tower_config(name)
    return read_config(name)
