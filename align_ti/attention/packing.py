"""Padding-free batches: samples concatenated in a single row, each attending only to itself."""

from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from align_ti.attention.varlen import Segments, VarlenKernel, refuse_dropout, varlen_kernel
from align_ti.transfer import send
from llava.constants import IGNORE_INDEX
from llava.model.splice import SplicedBatch


@dataclass(frozen=True)
class Packing:
    """Positions of the samples in a packed row ``[1, T]``.

    Attributes:
        bounds: Long ``[N + 1]``, on the row's device; sample ``i`` has columns ``bounds[i]`` to ``bounds[i + 1]``.
        spans: The same as ``(start, stop)`` pairs of Python integers.
    """

    bounds: Tensor
    spans: tuple[tuple[int, int], ...]

    def sample_of(self, columns: Tensor) -> Tensor:
        """Index of the sample that each column belongs to."""
        return torch.searchsorted(self.bounds, columns, right=True) - 1


def samples_of(index: Tensor, width: int, packing: Packing | None) -> Tensor:
    """The sample that each position of a batch belongs to.

    Args:
        index: Long ``[R]`` into ``[B * S]``, or into the ``T`` columns of a packed row.
        width: ``S``.
        packing: Packing of the row, if it is packed.
    """
    return index // width if packing is None else packing.sample_of(index)


def pack(batch: SplicedBatch, mask: Tensor | None = None) -> tuple[SplicedBatch, Packing]:
    """Concatenate the real tokens of a padded batch ``[B, S]`` in one row ``[1, T]``, in the order of the samples.

    Position ids are kept, so every sample counts from 0. The first token of a sample is not a target: the position
    before it belongs to another sample.

    Args:
        batch: The batch.
        mask: Its attention mask on the CPU, so that a GPU is not waited for.
    """
    device = batch.labels.device
    real = (batch.attention_mask if mask is None else mask).cpu().bool()
    lengths = real.sum(1)
    bounds = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    edges = bounds.tolist()
    places = send(real.flatten().nonzero().flatten(), device)
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    rows: dict[str, Any] = {
        name: value.flatten(0, 1).index_select(0, places)[None]
        for name, value in values.items()
        if isinstance(value, Tensor)
    }
    # The column before a sample's first token belongs to another sample and must not predict it.
    rows["labels"].index_fill_(1, send(bounds[:-1][lengths > 0], device), IGNORE_INDEX)
    return SplicedBatch(**rows), Packing(send(bounds, device), tuple(zip(edges, edges[1:], strict=False)))


class PackedSdpa:
    """Causal attention of a packed row, sample by sample, with PyTorch's attention; runs everywhere."""

    def __init__(self, packing: Packing) -> None:
        self.lengths = [stop - start for start, stop in packing.spans]

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float) -> Tensor:
        """``query [1, H, T, D]``; key and value ``[1, H_kv, T, D]`` -> ``[1, T, H, D]``."""
        parts = (tensor.split(self.lengths, dim=2) for tensor in (query, key, value))
        outputs = [
            scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout, scale=scaling, enable_gqa=True)
            for q, k, v in zip(*parts, strict=True)
        ]
        return torch.cat(outputs, dim=2).transpose(1, 2)


class VarlenAttention(torch.autograd.Function):
    """A ``VarlenKernel`` as a differentiable function."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, segments: Segments, kernel: VarlenKernel, scale: float
    ) -> Tensor:
        """``query [T, H, D]``; key and value ``[T, H_kv, D]`` -> ``[T, H, D]``."""
        out, lse = kernel.forward(query, key, value, segments, scale)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.segments, ctx.kernel, ctx.scale = segments, kernel, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """See the kernel."""
        query, key, value, out, lse = ctx.saved_tensors
        grads = ctx.kernel.backward(grad.contiguous(), query, key, value, out, lse, ctx.segments, ctx.scale)
        return *grads, None, None, None


class PackedFlash:
    """Causal attention of a packed row in one variable-length FlashAttention call."""

    def __init__(self, packing: Packing, kernel: VarlenKernel | None = None) -> None:
        self.kernel = varlen_kernel() if kernel is None else kernel
        edges, longest = packing.bounds.to(torch.int32), max(stop - start for start, stop in packing.spans)
        self.segments = Segments(edges, edges, longest, longest)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float) -> Tensor:
        """See ``PackedSdpa``.

        Raises:
            InputError: Attention dropout is set; the kernel call does not support it.
        """
        refuse_dropout("packed FlashAttention", dropout)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        rows = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
        return VarlenAttention.apply(*rows, self.segments, self.kernel, scale)[None]


class PackedAttention(Protocol):
    """Attention of a packed row: ``query [1, H, T, D]``; key and value ``[1, H_kv, T, D]`` -> ``[1, T, H, D]``."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float) -> Tensor:
        """Of one layer."""
        ...


def packed_attention(packing: Packing, backend: str) -> PackedAttention:
    """The attention of a packed main pass: FlashAttention if the ribbon's backend is ``flash``, otherwise per-sample
    SDPA."""
    return PackedFlash(packing) if backend == "flash" else PackedSdpa(packing)
