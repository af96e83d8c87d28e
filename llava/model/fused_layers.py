"""Decoder layers compiled: fewer launches, and less of the host's time for each.

As transformers writes them, the elementwise operations of a layer are some forty launches, and read and write the
hidden states as often. The results differ by rounding alone: what is computed in float32 is rounded once, at the end.
Attention stays as it is chosen.
"""

import sys
from collections.abc import Callable
from functools import cache
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm, silu
from transformers.activations import ACT2FN
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from llava.fusion import checked, why_not_fused

SILU = (nn.SiLU, type(ACT2FN["silu"]))

FAMILIES = ("Llama", "Qwen2", "Qwen3")
"""Those whose layers are written as below; the names of transformers' classes begin with them."""


def fuse_layers(model: nn.Module, device: torch.device) -> bool:
    """Replace the forward functions of a language model's layers.

    Parameters and their names stay as they are, and so do families that are not known. A layer is two compiled
    functions of its weights, before and after attention. Where its modules have to be called themselves (adapters;
    weights that ZeRO-3 gathers), norms, MLP and rotary embedding are replaced one by one.

    Args:
        model: A language model, or one that contains it.
        device: Where it will run.

    Returns:
        Whether anything was replaced: a GPU is needed, and triton.
    """
    if device.type != "cuda" or why_not_fused(device) is not None:
        return False
    replaced = False
    for module in model.modules():
        kind = type(module).__name__
        family = next((name for name in FAMILIES if kind.startswith(name)), None)
        part = kind.removeprefix(family or "")
        if family is None or part not in ("RMSNorm", "MLP", "Attention", "DecoderLayer"):
            continue
        replaced = True
        if part == "DecoderLayer" and _is_plain(module):
            module.forward = MethodType(_layer, module)
        elif part == "RMSNorm":
            module.forward = MethodType(_norm, module)
        elif part == "MLP" and isinstance(module.act_fn, SILU):
            module.forward = MethodType(_gated, module)
        elif part == "Attention":
            _fuse_rotary(type(module).__module__)
    return replaced


# ---- a layer in two functions ----


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer's modules are only their weights."""
    attention, mlp = layer.self_attn, layer.mlp
    names = ("q_proj", "k_proj", "v_proj", "o_proj")
    linears = [getattr(attention, name) for name in names] + [mlp.gate_proj, mlp.up_proj, mlp.down_proj]  # type: ignore[union-attr]
    whole = all(not hasattr(parameter, "ds_id") for parameter in layer.parameters())
    biased = any(linear.bias is not None for linear in linears[4:])
    return whole and not biased and isinstance(mlp.act_fn, SILU) and all(type(x) is nn.Linear for x in linears)  # type: ignore[union-attr]


def _layer(
    self: Any,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    past_key_values: Any = None,
    use_cache: bool | None = False,
    position_embeddings: tuple[Tensor, Tensor] | None = None,
    **kwargs: Any,
) -> Tensor:
    """The forward function of transformers' decoder layers. Their own runs with a cache, under gradient checkpointing
    (which is part of it), and where ZeRO-3 has to gather the weights."""
    attention, mlp = self.self_attn, self.mlp
    checkpointed = self.training and getattr(self, "gradient_checkpointing", False)
    in_pieces = hasattr(attention.q_proj.weight, "ds_id")
    cached = past_key_values is not None or position_embeddings is None
    if cached or checkpointed or in_pieces or not hidden_states.is_cuda:
        return type(self).forward(
            self,
            hidden_states,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            position_embeddings=position_embeddings,
            **kwargs,
        )
    assert position_embeddings is not None
    before, after = _functions(self.input_layernorm.variance_epsilon, attention.head_dim)
    query, key, value = before(
        hidden_states,
        *position_embeddings,
        self.input_layernorm.weight,
        [(linear.weight, linear.bias) for linear in (attention.q_proj, attention.k_proj, attention.v_proj)],
        [getattr(attention, name).weight for name in ("q_norm", "k_norm") if hasattr(attention, name)],
    )
    eager = sys.modules[type(attention).__module__].eager_attention_forward  # type: ignore[attr-defined]
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager)
    attended, _ = attend(
        attention,
        query,
        key,
        value,
        attention_mask,
        dropout=attention.attention_dropout if self.training else 0.0,
        scaling=attention.scaling,
        sliding_window=getattr(attention, "sliding_window", None),
        position_ids=position_ids,
        **kwargs,
    )
    return after(
        attended.flatten(2),
        hidden_states,
        (attention.o_proj.weight, attention.o_proj.bias),
        self.post_attention_layernorm.weight,
        [linear.weight for linear in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)],
    )


@cache
def _functions(epsilon: float, width: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What is before and after attention in a layer, compiled.

    Args:
        epsilon: Of the norms.
        width: Of an attention head.
    """

    def before(
        hidden: Tensor,
        cos: Tensor,
        sin: Tensor,
        norm: Tensor,
        projections: list[tuple[Tensor, Tensor | None]],
        head_norms: list[Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, ``[B, H, S, D]`` each, with positions applied."""
        inputs = rms_norm(hidden, norm.shape, norm, epsilon)
        heads = [linear(inputs, *weights).unflatten(-1, (-1, width)) for weights in projections]
        for index, weight in enumerate(head_norms):
            heads[index] = rms_norm(heads[index], weight.shape, weight, epsilon)
        query, key, value = (tensor.transpose(1, 2) for tensor in heads)
        return *_rotate(query, key, cos, sin), value

    def after(
        attended: Tensor, residual: Tensor, output: tuple[Tensor, Tensor | None], norm: Tensor, mlp: list[Tensor]
    ) -> Tensor:
        """The layer's output, ``[B, S, D]``."""
        hidden = residual + linear(attended, *output)
        inputs = rms_norm(hidden, norm.shape, norm, epsilon)
        gate, up, down = mlp
        return hidden + linear(silu(linear(inputs, gate)) * linear(inputs, up), down)

    return checked(before), checked(after)


# ---- one module at a time ----


def _norm(self: nn.Module, hidden_states: Tensor) -> Tensor:
    return rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)  # type: ignore[arg-type]


def _gated(self: nn.Module, x: Tensor) -> Tensor:
    return self.down_proj(checked(_silu_times)(self.gate_proj(x), self.up_proj(x)))  # type: ignore[operator]


def _silu_times(gate: Tensor, up: Tensor) -> Tensor:
    return silu(gate) * up


def _rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """``x cos + (-x2, x1) sin`` for both halves of each head; ``[B, H, S, D]`` and ``[B, S, D]``."""
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    turned = []
    for heads in (query, key):
        first, second = heads.chunk(2, dim=-1)
        turned.append(heads * cos + torch.cat((-second, first), dim=-1) * sin)
    return turned[0], turned[1]


def _fuse_rotary(module: str) -> None:
    """Replace ``apply_rotary_pos_emb`` of one of transformers' modules."""

    def apply_rotary_pos_emb(
        q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
    ) -> tuple[Tensor, Tensor]:
        if not q.is_cuda or unsqueeze_dim != 1:
            return original(q, k, cos, sin, unsqueeze_dim)
        return checked(_rotate)(q, k, cos, sin)

    source = sys.modules[module]
    original = source.apply_rotary_pos_emb  # type: ignore[attr-defined]
    if original.__name__ == "apply_rotary_pos_emb" and original.__module__ != __name__:
        source.apply_rotary_pos_emb = apply_rotary_pos_emb  # type: ignore[attr-defined]
