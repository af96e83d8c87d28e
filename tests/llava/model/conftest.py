"""Tiny real towers and language models, written to disk once, and a factory that puts them together."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from llava.model import language_model_class

IMAGE_SIZE, PATCH, WIDTH, TOWER_LAYERS = 16, 8, 24, 3
VOCABULARY = 400  # the size of qwen_tokenizer

VISION = {
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": TOWER_LAYERS,
    "num_attention_heads": 2,
    "image_size": IMAGE_SIZE,
    "patch_size": PATCH,
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 40,
}
LANGUAGE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "max_position_embeddings": 256,
}
FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16}),
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
}


def _tower(folder: Path, kind: str) -> Path:
    torch.manual_seed(1)
    processor: Any = SiglipImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    model: Any
    if kind == "siglip":
        model = SiglipVisionModel(SiglipVisionConfig(**VISION))
    elif kind == "siglip_full":
        model = SiglipModel(SiglipConfig(vision_config=VISION, text_config=TEXT))
    else:
        processor = CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
        )
        if kind == "clip":
            model = CLIPVisionModel(CLIPVisionConfig(**VISION))
        else:
            model = CLIPModel(CLIPConfig(vision_config=VISION, text_config={**TEXT, "eos_token_id": 2}))
    with torch.no_grad():
        for parameter in model.parameters():  # the library's own initialisation hardly tells pictures apart
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tower_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``tower_folder("siglip" | "siglip_full" | "clip" | "clip_full")``: a tower checkpoint on disk."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = _tower(tmp_path_factory.mktemp("towers") / "encoder", kind)
        return made[kind]

    return get


@pytest.fixture(scope="session")
def language_folder(tmp_path_factory: pytest.TempPathFactory, qwen_tokenizer) -> Callable[..., Path]:
    """``language_folder(family, tied=False, sizes={})``: a plain language model with its tokenizer on disk."""
    made: dict[tuple[Any, ...], Path] = {}

    def get(family: str, tied: bool = False, sizes: Mapping[str, int] = MappingProxyType({})) -> Path:
        key = (family, tied, *sorted(sizes.items()))
        if key not in made:
            config_class, model_class, extra = FAMILIES[family]
            folder = tmp_path_factory.mktemp("language") / "base"
            torch.manual_seed(2)
            config = config_class(**{**LANGUAGE, **sizes}, **extra, tie_word_embeddings=tied)
            model_class(config).save_pretrained(folder)
            qwen_tokenizer.save_pretrained(folder)
            made[key] = folder
        return made[key]

    return get


@pytest.fixture
def make_model(tower_folder, language_folder) -> Callable[..., Any]:
    """``make_model(family="qwen2", ...)``: a vision-language model in evaluation mode."""

    def make(
        family: str = "qwen2",
        tied: bool = False,
        tower: str = "siglip",
        projector: str = "mlp2x_gelu",
        layer: int = -2,
        dtype: torch.dtype = torch.float32,
        sizes: Mapping[str, int] = MappingProxyType({}),
    ) -> Any:
        model = language_model_class(family).from_pretrained(language_folder(family, tied, sizes), dtype=dtype)
        torch.manual_seed(3)
        model.initialize_vision_modules(
            str(tower_folder(tower)), mm_projector_type=projector, mm_vision_select_layer=layer
        )
        with torch.no_grad():
            for parameter in model.model.mm_projector.parameters():
                parameter.mul_(3)
        return model.eval()

    return make


@pytest.fixture
def pictures() -> Callable[..., torch.Tensor]:
    """``pictures(n)``: n random pictures ``[n, 3, H, W]``, the same for the same seed."""

    def make(count: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator).to(dtype)

    return make


@pytest.fixture
def full(make_model, qwen_tokenizer, tmp_path):
    """A complete checkpoint in a folder whose name would mislead whoever trusts names."""

    def make(family: str = "qwen2", **kwargs):
        model, folder = make_model(family, **kwargs), tmp_path / "bert-lora-projector"
        model.save_pretrained(folder)
        qwen_tokenizer.save_pretrained(folder)
        return model, folder

    return make
