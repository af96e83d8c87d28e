"""Variable-length FlashAttention with separate forward and backward calls, as needed for merging.

The backward pass of FlashAttention recomputes the probabilities from the scores and the given log-sum-exp, and takes
``sum(grad * out)`` as their mean gradient. Given the output and log-sum-exp over *more* keys than the call has, it
therefore returns the exact gradient of this call's share (as in ring attention, Liu et al., 2023).
"""

import importlib.util
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from llava.errors import InputError


class Segments(NamedTuple):
    """Packed sequences: ``cu_q``, ``cu_k`` int32 ``[N + 1]`` cumulative lengths, and the longest of each.

    The mask is causal and aligned at the end: query ``i`` of ``n`` attends to keys up to ``i + m - n`` of ``m``.
    """

    cu_q: Tensor
    cu_k: Tensor
    max_q: int
    max_k: int


class VarlenKernel(Protocol):
    """Causal attention over packed sequences.

    ``query [T_q, H, D]``; ``key``, ``value`` ``[T_k, H_kv, D]``, query head ``h`` reads key head ``h // (H / H_kv)``.
    """

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float
    ) -> tuple[Tensor, Tensor]:
        """``out [T_q, H, D]`` and ``lse [T_q, H]`` (float32 or better) of the scaled scores."""
        ...

    def backward(
        self,
        grad: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        lse: Tensor,
        segments: Segments,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of query, key and value, for the given ``out`` and ``lse``."""
        ...


class TorchVarlen:
    """PyTorch's own FlashAttention (``torch.nn.attention.varlen``, from 2.10 on)."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float
    ) -> tuple[Tensor, Tensor]:
        """See ``VarlenKernel``."""
        gqa = query.shape[1] != key.shape[1]
        out, lse, _ = torch.ops.torch_attn._varlen_attn(
            query, key, value, *segments, is_causal=True, scale=scale, window_size=[-1, 0], enable_gqa=gqa
        )
        return out, lse.T

    def backward(
        self,
        grad: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        lse: Tensor,
        segments: Segments,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See ``VarlenKernel``."""
        state = torch.zeros(2, dtype=torch.uint64, device=query.device)  # RNG state for dropout, which is off
        return torch.ops.torch_attn._varlen_attn_backward(
            grad,
            query,
            key,
            value,
            out,
            lse.T.contiguous(),
            *segments,
            is_causal=True,
            rng_state=state,
            scale=scale,
            window_size=[-1, 0],
        )


class FlashAttn2Varlen:
    """The package ``flash-attn`` 2.x, whose low-level functions take the log-sum-exp in the backward pass."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float
    ) -> tuple[Tensor, Tensor]:
        """See ``VarlenKernel``."""
        from flash_attn.flash_attn_interface import _flash_attn_varlen_forward

        out, lse, _, _ = _flash_attn_varlen_forward(
            query, key, value, *segments, dropout_p=0.0, softmax_scale=scale, causal=True
        )
        return out, lse.T

    def backward(
        self,
        grad: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        lse: Tensor,
        segments: Segments,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See ``VarlenKernel``."""
        from flash_attn.flash_attn_interface import _flash_attn_varlen_backward

        grads = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        _flash_attn_varlen_backward(
            grad.contiguous(),
            query,
            key,
            value,
            out,
            lse.T.contiguous(),
            *grads,
            *segments,
            dropout_p=0.0,
            softmax_scale=scale,
            causal=True,
            window_size_left=-1,
            window_size_right=0,
            softcap=0.0,
            alibi_slopes=None,
            deterministic=False,
        )
        return grads


def refuse_dropout(what: str, dropout: float) -> None:
    """Raise ``InputError`` if dropout is set for an attention that does not support it."""
    if dropout:
        raise InputError(
            f"{what} does not support dropout, found attention_dropout {dropout}: use --ribbon_backend sdpa, or set it "
            "to 0"
        )


def why_not_varlen() -> str | None:
    """Why no variable-length FlashAttention runs on this machine; None if one does."""
    if not torch.cuda.is_available():
        return "FlashAttention needs a CUDA device"
    if torch.cuda.get_device_capability() < (8, 0):
        return f"FlashAttention needs compute capability 8.0, this device has {torch.cuda.get_device_capability()}"
    if not _torch_has_varlen() and importlib.util.find_spec("flash_attn") is None:
        return f"torch {torch.__version__} has no varlen attention (added in 2.10), and flash-attn is not installed"
    return None


def varlen_kernel() -> VarlenKernel:
    """The kernel for this machine: PyTorch's own, otherwise flash-attn's.

    Raises:
        InputError: There is none; the message says why.
    """
    reason = why_not_varlen()
    if reason is not None:
        raise InputError(reason)
    return TorchVarlen() if _torch_has_varlen() else FlashAttn2Varlen()


def _torch_has_varlen() -> bool:
    try:
        import torch.nn.attention.varlen  # noqa: F401  (defines torch.ops.torch_attn)
    except ImportError:
        return False
    return hasattr(torch.ops.torch_attn, "_varlen_attn_backward")
