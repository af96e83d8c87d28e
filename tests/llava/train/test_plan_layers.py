"""The bytes that layers keep, by formula, against what autograd saves when transformers runs them."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import LlamaConfig, Qwen2Config, Qwen3Config

from llava.model.language import language_model_class
from llava.model.lora import add_lora
from llava.train.plan.layers import Precision, adapters_kept, layer_kept
from llava.train.plan.sizes import DecoderShape

SHAPES = {
    "qwen2": (Qwen2Config, {"num_key_value_heads": 2}),
    "qwen2, one key head": (Qwen2Config, {"num_key_value_heads": 1}),
    "qwen3": (Qwen3Config, {"num_key_value_heads": 2, "head_dim": 32}),
    "llama": (LlamaConfig, {"num_key_value_heads": 4}),
}
BATCH, LENGTH = 2, 101


def build(name: str, layers: int, dtype: torch.dtype = torch.float32):
    config_class, changes = SHAPES[name]
    fields = config_class(
        vocab_size=64, hidden_size=64, intermediate_size=192, num_hidden_layers=layers, num_attention_heads=4, **changes
    ).to_dict()
    model_class = language_model_class(fields.pop("model_type"))
    config = model_class.config_class(**fields)
    config._attn_implementation = "sdpa"
    return model_class(config).to(dtype).train()


def saved_bytes(model, dtype: torch.dtype, masked: bool) -> int:
    """Bytes of all storages that autograd keeps of one forward pass, weights and their casts left out."""
    weights = {tuple(parameter.shape) for parameter in model.parameters()}
    weights |= {shape[::-1] for shape in weights}
    kept, alive = {}, []

    def keep(tensor):
        alive.append(tensor)
        if tuple(tensor.shape) not in weights:
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
        return tensor

    embeds = torch.randn(BATCH, LENGTH, model.config.hidden_size, dtype=dtype, requires_grad=True)
    mask = torch.ones(BATCH, 1, LENGTH, LENGTH, dtype=torch.bool).tril() if masked else None
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model(inputs_embeds=embeds, attention_mask=mask, use_cache=False)
    return sum(kept.values())


def one_layer(prepare, name: str, dtype: torch.dtype, masked: bool = False) -> float:
    """Bytes a token that a layer adds."""
    totals = []
    for layers in (1, 2):
        model = build(name, layers, dtype)
        prepare(model)
        totals.append(saved_bytes(model, dtype, masked))
    return (totals[1] - totals[0]) / (BATCH * LENGTH)


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list(SHAPES))
def test_a_layer_keeps_what_the_formula_says(name, dtype, trained):
    shape = DecoderShape.of(build(name, 1).config)
    found = one_layer(lambda model: model.requires_grad_(trained), name, dtype)
    assert found == layer_kept(shape, Precision(dtype.itemsize), trained)


@pytest.mark.parametrize("name", list(SHAPES))
def test_a_layer_under_a_mask(name):
    """The mask itself is kept as numbers, once a layer."""
    shape = DecoderShape.of(build(name, 1).config)
    found = one_layer(lambda model: None, name, torch.float32, masked=True)
    assert found == layer_kept(shape, Precision(4), masked=True) + LENGTH * 4


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("name", ["qwen2", "qwen3", "llama"])
def test_a_layer_under_autocast(name, trained):
    shape = DecoderShape.of(build(name, 1).config)
    with torch.autocast("cpu", torch.bfloat16):
        found = one_layer(lambda model: model.requires_grad_(trained), name, torch.float32)
    assert found == layer_kept(shape, Precision(2, autocast=True), trained)


def test_adapters():
    pytest.importorskip("peft")
    shape = DecoderShape.of(build("qwen2", 1).config)

    def adapt(model):
        add_lora(model, "base", r=12, alpha=16, dropout=0.05, bias="none")

    found = one_layer(adapt, "qwen2", torch.float32)
    expected = layer_kept(shape, Precision(4), trained=False) + adapters_kept(shape, Precision(4), 12, cuda=False)
    assert found == expected
