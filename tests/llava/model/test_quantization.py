"""8 and 4 bits: what is asked of bitsandbytes, and what is refused; the loading itself where the package runs."""

import importlib.util

import pytest
import torch

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import InputError
from llava.model.builder import load_pretrained_model
from llava.model.quantization import WHOLE, quantization_config


def test_settings():
    assert quantization_config(False, False, torch.float16) is None
    with pytest.raises(InputError, match="exclude each other"):
        quantization_config(True, True, None)


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="need the package bitsandbytes.*quantized"):
        quantization_config(True, False, None)


@pytest.mark.parametrize("bits, likeness", [("8", 0.99), ("4", 0.8)])
def test_quantized_answers_are_near_the_whole_ones(bits, likeness, full):
    """Only the decoder's linear layers change: logits stay near, weights shrink, tower and projector are whole.

    Processors with AVX512-BF16 take blocks of 64 inputs and 32 outputs, which real models have.
    """
    pytest.importorskip("bitsandbytes")
    _, folder = full(sizes={"hidden_size": 64, "intermediate_size": 64})
    whole = load_pretrained_model(folder, torch_dtype=torch.float32)[1]
    small = load_pretrained_model(folder, torch_dtype=torch.float32, **{f"load_{bits}bit": True})[1]
    ids = torch.tensor([[3, IMAGE_TOKEN_INDEX, 5, 7, 9]])
    size = whole.get_vision_tower().image_size
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want, got = (model(ids, images=images, use_cache=False).logits for model in (whole, small))
    before, after = (model.model.layers[0].self_attn.q_proj.weight for model in (whole, small))
    assert after.nbytes == before.nbytes * int(bits) // 32
    kept = [p for name, p in small.named_parameters() if any(part in name for part in WHOLE)]
    assert kept and all(p.dtype == torch.float32 for p in kept)
    assert likeness < torch.nn.functional.cosine_similarity(got.flatten(), want.flatten(), dim=0) < 1
