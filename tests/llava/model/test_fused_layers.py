"""Fused decoder layers against transformers' own, forward and backward."""

import copy

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.qwen2 import modeling_qwen2

from llava.model import fused_layers
from llava.model.fused_layers import fuse_layers
from llava.model.language import language_model_class

KINDS = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
SIZES = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip


def logits_and_gradients(model, ids):
    logits = model(input_ids=ids).logits
    return logits.detach().float(), torch.autograd.grad(logits.float().sin().sum(), list(model.parameters()))


def assert_near(found, expected, tolerance):
    logits, gradients = found
    assert (logits - expected[0]).norm() < tolerance * expected[0].norm()
    ours, theirs = (torch.cat([part.flatten().float() for part in parts]) for parts in (gradients, expected[1]))
    assert (ours - theirs).norm() < tolerance * theirs.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_cpu_the_functions_are_transformers_own(kind, monkeypatch):
    """The replacing functions, uncompiled and in float64, in place of a GPU's launches of the same functions."""
    config_class, model_class = KINDS[kind]
    torch.manual_seed(0)
    model = model_class(config_class(**SIZES)).double()
    for module in model.modules():  # transformers' norms round to float32 inside
        if type(module).__name__.endswith("RMSNorm"):
            module.weight.data.uniform_(0.5, 1.5)
    fused = copy.deepcopy(model)
    ids = torch.randint(60, (2, 9))
    expected = logits_and_gradients(model, ids)
    source = __import__("sys").modules[model_class.__module__]
    original = source.apply_rotary_pos_emb
    monkeypatch.setattr(source, "apply_rotary_pos_emb", original)  # restored afterwards
    monkeypatch.setattr(fused_layers, "why_not_fused", lambda device: None)
    monkeypatch.setattr(fused_layers, "checked", lambda function: function)
    fused_layers._functions.cache_clear()
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True))
    assert fuse_layers(fused, torch.device("cuda"))
    assert source.apply_rotary_pos_emb is not original
    assert_near(logits_and_gradients(fused, ids), expected, 1e-6)


def test_checkpointed_layers_run_as_they_are(monkeypatch):
    """Checkpointing is part of transformers' forward function, which must not be replaced then."""
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES)).train()
    ids = torch.randint(60, (2, 9))
    expected = logits_and_gradients(model, ids)
    monkeypatch.setattr(fused_layers, "why_not_fused", lambda device: None)
    monkeypatch.setattr(modeling_qwen2, "apply_rotary_pos_emb", modeling_qwen2.apply_rotary_pos_emb)
    monkeypatch.setattr(fused_layers, "checked", lambda function: function)
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True))
    fused_layers._functions.cache_clear()
    assert fuse_layers(model, torch.device("cuda"))
    model.gradient_checkpointing_enable({"use_reentrant": False})
    calls = []
    for layer in model.model.layers:
        original = layer._gradient_checkpointing_func

        def counted(*given, run=original, **more):
            calls.append(1)
            return run(*given, **more)

        layer._gradient_checkpointing_func = counted
    assert_near(logits_and_gradients(model, ids), expected, 1e-4)
    assert len(calls) == 2


def test_nothing_is_replaced_without_a_gpu():
    model = language_model_class("qwen2")(language_model_class("qwen2").config_class(**SIZES))
    assert not fuse_layers(model, torch.device("cpu"))
    assert all("forward" not in vars(module) for module in model.modules())
    assert modeling_qwen2.apply_rotary_pos_emb.__module__ == modeling_qwen2.__name__


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_in_half_precision(kind):
    config_class, model_class = KINDS[kind]
    torch.manual_seed(0)
    model = model_class(config_class(**SIZES)).cuda()
    ids = torch.randint(60, (2, 9), device="cuda")
    expected = logits_and_gradients(model, ids)
    plain = logits_and_gradients(model.bfloat16(), ids)
    assert fuse_layers(model, torch.device("cuda"))
    found = logits_and_gradients(model, ids)
    assert_near(found, expected, 0.03)
    error, before = ((logits - expected[0]).norm() for logits, _ in (found, plain))
    assert error < 1.5 * before, "as near to float32 as without"
