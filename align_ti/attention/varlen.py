"""Variable-length FlashAttention with separate forward and backward calls, as needed for merging.

The backward pass of FlashAttention recomputes the probabilities from the scores and the given log-sum-exp, and takes
``sum(grad * out)`` as their mean gradient. Given the output and log-sum-exp over *more* keys than the call has, it
therefore returns the exact gradient of this call's share (as in ring attention, Liu et al., 2023).
"""

import importlib.util
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

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


WIDTHS = 8
"""FlashAttention's heads have a multiple of this width."""


def _padded(*tensors: Tensor) -> list[Tensor]:
    """Heads ``[T, H, D]`` widened with zeros to a width that the kernel takes: scores and outputs stay the same."""
    missing = -tensors[0].shape[-1] % WIDTHS
    return [pad(tensor, (0, missing)) if missing else tensor for tensor in tensors]


class TorchVarlen:
    """PyTorch's own FlashAttention, called as the operators below ``torch.nn.attention.varlen``: these take a
    log-sum-exp in the backward pass, and have had one signature since before torch 2.11."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float
    ) -> tuple[Tensor, Tensor]:
        """See ``VarlenKernel``."""
        # The window [-1, 0] is what a causal mask says already. With it, the kernel does not rearrange a call whose
        # samples have one query each, which would also rearrange its log-sum-exp.
        width = query.shape[-1]
        query, key, value = _padded(query, key, value)
        out, lse, *_ = torch.ops.aten._flash_attention_forward(
            query, key, value, *segments, 0.0, True, False, scale=scale, window_size_left=-1, window_size_right=0
        )
        return out[..., :width], lse.T

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
        # Dropout is off, so the state of its random numbers is not read.
        state = torch.empty(2, dtype=torch.uint64, device=query.device)
        width = query.shape[-1]
        grad, query, key, value, out = _padded(grad, query, key, value, out)
        gradients = torch.ops.aten._flash_attention_backward(
            grad,
            query,
            key,
            value,
            out,
            lse.T.contiguous(),
            *segments,
            0.0,
            True,
            state,
            state[:0],
            scale=scale,
            window_size_left=-1,
            window_size_right=0,
        )
        return tuple(gradient[..., :width] for gradient in gradients)  # type: ignore[return-value]


class FlashAttn2Varlen:
    """The package ``flash-attn`` 2.x, whose low-level functions take the log-sum-exp in the backward pass."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float
    ) -> tuple[Tensor, Tensor]:
        """See ``VarlenKernel``."""
        from flash_attn.flash_attn_interface import _flash_attn_varlen_forward

        width = query.shape[-1]
        out, lse, _, _ = _flash_attn_varlen_forward(
            *_padded(query, key, value),
            *segments,
            dropout_p=0.0,
            softmax_scale=scale,
            causal=True,
            window_size_left=-1,
            window_size_right=0,  # see TorchVarlen
        )
        return out[..., :width], lse.T

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

        width = query.shape[-1]
        grad, query, key, value, out = _padded(grad, query, key, value, out)
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
        return tuple(gradient[..., :width] for gradient in grads)  # type: ignore[return-value]


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
        return f"torch {torch.__version__} was built without FlashAttention, and flash-attn is not installed"
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
    # ROCm's kernel lays out the log-sum-exp differently.
    return torch.version.hip is None and torch.backends.cuda.is_flash_attention_available()
