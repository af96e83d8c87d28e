"""Decoder layers with fewer kernels: norm, rotary embedding and gated activation each become one launch on a GPU.

As transformers writes them, the elementwise operations of a layer are some forty launches, and read and write the
hidden states as often. The results differ by rounding alone: what is computed in float32 is rounded once, at the end.
"""

import logging
import sys
from types import MethodType

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu
from transformers.activations import ACT2FN

from llava.fusion import fuse, why_not_fused

logger = logging.getLogger(__name__)

SILU = (nn.SiLU, type(ACT2FN["silu"]))

FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3")
"""Those whose layers are written as below; the names of transformers' classes begin with them."""


def fuse_layers(model: nn.Module, device: torch.device) -> bool:
    """Replace the forward functions of a language model's norms and MLPs, and its family's rotary embedding.

    Parameters and their names stay as they are. Families that are not known stay as they are.

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
        kind = type(module).__name__.removeprefix("Llava")
        family = next((name for name in FAMILIES if kind.startswith(name)), None)
        part = kind.removeprefix(family or "")
        if family is None or part not in ("RMSNorm", "MLP", "Attention"):
            continue
        replaced = True
        if part == "RMSNorm":
            module.forward = MethodType(_norm, module)
        elif part == "MLP" and isinstance(module.act_fn, SILU):
            module.forward = MethodType(_gated, module)
        elif part == "Attention":
            _fuse_rotary(type(module).__module__)
    return replaced


def _norm(self: nn.Module, hidden_states: Tensor) -> Tensor:
    return rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)  # type: ignore[arg-type]


def _gated(self: nn.Module, x: Tensor) -> Tensor:
    return self.down_proj(fuse(_silu_times)(self.gate_proj(x), self.up_proj(x)))  # type: ignore[operator]


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
        return fuse(_rotate)(q, k, cos, sin)

    source = sys.modules[module]
    original = source.apply_rotary_pos_emb  # type: ignore[attr-defined]
    if original.__name__ == "apply_rotary_pos_emb" and original.__module__ != __name__:
        source.apply_rotary_pos_emb = apply_rotary_pos_emb  # type: ignore[attr-defined]
