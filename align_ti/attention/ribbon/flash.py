"""The ribbon with variable-length FlashAttention: one call for the prefix, then the candidate's own key is merged in.

In the prefix, a candidate of ``y_k`` attends to what the token before ``y_k`` attends to. This is causal attention once
candidates are arranged along the response: one query row per column, with the candidates of a column side by side as
additional query heads of the same key head. The candidate's own key is a single score per head, merged through the
log-sum-exp as FlashAttention merges blocks.
"""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from align_ti.attention.ribbon.geometry import RibbonGeometry
from align_ti.attention.varlen import Segments, VarlenKernel, refuse_dropout, varlen_kernel
from align_ti.numerics import exact_dtype
from align_ti.transfer import send
from llava.fusion import fused_where_fast


class QueryGrid:
    """Candidates arranged in rows and slots of a varlen call, and the prefix columns it reads.

    A sample's rows run from the column before its first limit to the last column it reads; candidates with the same
    limit take slots 0, 1, ... of one row. Candidates that see nothing but themselves are left out. Built on the CPU and
    sent to the device once.

    Attributes:
        columns: Long ``[T_k]``, prefix columns to read, indices into ``[B * S]``; None: all of a packed row.
        segments: Segments of the call.
        place: Long ``[C]``, a candidate's row and slot, ``row * slots + slot``; -1 without a prefix.
        source: Long ``[rows * slots]``, the candidate at each place; -1 if it is empty.
        rows, slots: Size of the grid.
    """

    def __init__(self, geometry: RibbonGeometry) -> None:
        first_limits = [int(mine[0]) for mine in geometry.limits.split(_candidates(geometry)) if len(mine)]
        firsts, starts, keys, queries, counts = [], [], [], [], []
        # One grid row for every column from a sample's first limit to its last, so that the kernel's causal mask, which
        # is aligned at the end, gives row i exactly the prefix columns before its limit. In a packed row all columns of
        # all samples are read as they lie; in a padded batch those before the last limits are gathered.
        for index, span in enumerate(geometry.spans):
            stop = span.stop if geometry.ends is None else geometry.ends[index]
            if not span.candidates and geometry.ends is None:
                continue
            # A limit at the start has no prefix and no row; a sample without candidates has no rows.
            first = max(first_limits.pop(0), span.start + 1) if span.candidates else stop + 1
            counts.append(span.candidates)
            firsts.append(first)
            starts.append(span.row * geometry.length + span.start)
            keys.append(stop - span.start)
            queries.append(max(0, stop - first + 1))
        lengths_q, lengths_k = torch.tensor(queries), torch.tensor(keys)
        of = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))  # span of each candidate
        row = (lengths_q.cumsum(0) - lengths_q - torch.tensor(firsts))[of] + geometry.limits
        seen = (geometry.limits >= torch.tensor(firsts)[of]).nonzero().flatten()
        self.rows = int(lengths_q.sum())
        # Draws of the same step share a row: they see the same prefix, so they can be further query heads of it.
        slot, self.slots = _ranks(row[seen])
        place = torch.full_like(geometry.limits, -1)
        place[seen] = row[seen] * self.slots + slot
        source = torch.full((self.rows * self.slots,), -1)
        source[place[seen]] = seen
        device = geometry.device
        self.place, self.source = send(place, device), send(source, device)
        self.columns = None
        if geometry.ends is None:
            span_of = torch.arange(len(keys)).repeat_interleave(lengths_k)
            offset = torch.tensor(starts) - (lengths_k.cumsum(0) - lengths_k)
            self.columns = send(torch.arange(int(lengths_k.sum())) + offset[span_of], device)
        self.segments = Segments(
            send(_cumulative(lengths_q), device), send(_cumulative(lengths_k), device), max(queries), max(keys)
        )


def _candidates(geometry: RibbonGeometry) -> list[int]:
    return [span.candidates for span in geometry.spans]


def _ranks(values: Tensor) -> tuple[Tensor, int]:
    """Rank of each entry among its equal neighbours, from 0, and the largest number of equal entries (at least 1)."""
    _, counts = torch.unique_consecutive(values, return_counts=True)
    before = (counts.cumsum(0) - counts).repeat_interleave(counts)
    most = int(counts.max()) if len(counts) else 1
    return torch.arange(len(values)) - before, most


def _cumulative(lengths: Tensor) -> Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).to(torch.int32)


# What follows up to the class are elementwise functions around the kernel. On a GPU each is fused into a launch or two.


def spread(packed: Tensor, source: Tensor, slots: int, key_heads: int) -> Tensor:
    """Candidates ``[C, H, ...]`` -> grid ``[rows, H_kv * slots * groups, ...]``, zero at empty places."""
    filled = (source >= 0).view(-1, *[1] * (packed.dim() - 1))
    places = torch.where(filled, packed[source.clamp(min=0)], 0)
    heads = places.unflatten(1, (key_heads, -1)).unflatten(0, (-1, slots))  # r slot kv g ...
    return heads.transpose(1, 2).flatten(1, 3).contiguous()


def gather(grid: Tensor, place: Tensor, slots: int, key_heads: int, missing: float) -> Tensor:
    """The inverse of ``spread``: ``[C, H, ...]``; ``missing`` for candidates without a place."""
    heads = grid.unflatten(1, (key_heads, slots, -1)).transpose(1, 2).flatten(0, 1)  # (r slot) kv g ...
    found = heads[place.clamp(min=0)].flatten(1, 2)
    return torch.where((place >= 0).view(-1, *[1] * (found.dim() - 1)), found, missing)


def merge(
    query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, place: Tensor, slots: int, scale: float
) -> tuple[Tensor, Tensor]:
    """The attention to prefix and own key from that to the prefix, and its log-sum-exp.

    Args:
        query: ``[C, H, D]``.
        key, value: Own ones, ``[C, H_kv, D]``.
        out, lse: Of the prefix, as a grid.
        place, slots: See ``QueryGrid``.
        scale: Factor of the scores.
    """
    key_heads = key.shape[1]
    own, own_value = _own_score(query, key, scale), _repeat(value, query)
    before = gather(lse.to(own.dtype), place, slots, key_heads, -torch.inf)
    # The candidate's own key as one more block, in FlashAttention's way: weigh both parts by their share of the
    # softmax's denominator. A candidate without a prefix has lse = -inf and takes its own value alone.
    merged = torch.logaddexp(before, own)
    share, own_share = (before - merged).exp()[..., None], (own - merged).exp()[..., None]
    return (share * gather(out, place, slots, key_heads, 0.0) + own_share * own_value).to(query.dtype), merged


def own_gradients_and_grids(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    source: Tensor,
    slots: int,
    scale: float,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """``own_gradients``, and what the kernel's backward reads as grids: grad, query, out and lse."""
    grids = tuple(spread(tensor, source, slots, key.shape[1]) for tensor in (grad, query, out, lse))
    return own_gradients(grad, query, key, value, out, lse, scale), grids


def own_gradients(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value through the candidates' own keys; ``out`` and ``lse`` are over all keys."""
    key_heads = key.shape[1]
    share = (_own_score(query, key, scale) - lse).exp()
    # Softmax's gradient at the own key: share * (grad . v - grad . out).
    wide = grad.to(lse.dtype)
    slope = (wide * (_repeat(value, query) - out)).sum(-1) * share * scale
    grad_query = slope[..., None] * _repeat(key, query)
    grad_key = _sum_groups(slope[..., None] * query, key_heads)
    grad_value = _sum_groups(share[..., None] * wide, key_heads)
    return grad_query.to(query.dtype), grad_key.to(key.dtype), grad_value.to(value.dtype)


def add_gathered(total: Tensor, grid: Tensor, place: Tensor, slots: int, key_heads: int) -> Tensor:
    """``total [C, H, D]`` and the candidates' share of a grid."""
    return total + gather(grid, place, slots, key_heads, 0.0)


def _repeat(heads: Tensor, query: Tensor) -> Tensor:
    """``[C, H_kv, D]`` -> ``[C, H, D]``."""
    return heads.repeat_interleave(query.shape[1] // heads.shape[1], dim=1)


def _own_score(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Scaled score of each candidate with itself, ``[C, H]``, float32 or better."""
    exact = exact_dtype(query)
    return (query.to(exact) * _repeat(key, query).to(exact)).sum(-1) * scale


def _sum_groups(heads: Tensor, key_heads: int) -> Tensor:
    """``[C, H, D]`` summed over the query heads of a key head."""
    return heads.unflatten(1, (key_heads, -1)).sum(2)


class PrefixAndSelf(torch.autograd.Function):
    """Attention of candidates to their prefix and to themselves.

    With ``l_p`` the log-sum-exp over the prefix and ``s`` the own score, ``l = log(e^l_p + e^s)`` and
    ``out = e^(l_p - l) out_p + e^(s - l) v``. The prefix's gradient is the kernel's, run with ``out`` and ``l``.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        prefix_key: Tensor,
        prefix_value: Tensor,
        grid: QueryGrid,
        kernel: VarlenKernel,
        scale: float,
    ) -> Tensor:
        """``query [C, H, D]``, own ``[C, H_kv, D]``, prefix ``[T_k, H_kv, D]`` -> ``[C, H, D]``."""
        key_heads, device = key.shape[1], query.device
        if grid.rows:
            arranged = fused_where_fast(spread, device)(query, grid.source, grid.slots, key_heads)
            out, lse = kernel.forward(arranged, prefix_key, prefix_value, grid.segments, scale)
        else:  # no candidate has a prefix: one empty row for `place` to point at
            out = query.new_zeros(1, grid.slots * query.shape[1], query.shape[2])
            lse = out.new_full(out.shape[:2], -torch.inf, dtype=exact_dtype(query))
        result, merged = fused_where_fast(merge, device)(query, key, value, out, lse, grid.place, grid.slots, scale)
        ctx.save_for_backward(query, key, value, prefix_key, prefix_value, result, merged)
        ctx.grid, ctx.kernel, ctx.scale = grid, kernel, scale
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """See the class."""
        query, key, value, prefix_key, prefix_value, out, lse = ctx.saved_tensors
        grid, scale, key_heads, device = ctx.grid, ctx.scale, key.shape[1], query.device
        if not grid.rows:
            own = own_gradients(grad, query, key, value, out, lse, scale)
            return *own, torch.zeros_like(prefix_key), torch.zeros_like(prefix_value), None, None, None
        gradients, grids = fused_where_fast(own_gradients_and_grids, device)(
            grad, query, key, value, out, lse, grid.source, grid.slots, scale
        )
        # Given the output and log-sum-exp over all keys, the kernel returns the prefix's share of the gradient.
        grid_grad, *prefix = ctx.kernel.backward(
            grids[0], grids[1], prefix_key, prefix_value, *grids[2:], grid.segments, scale
        )
        grad_query = fused_where_fast(add_gathered, device)(gradients[0], grid_grad, grid.place, grid.slots, key_heads)
        return grad_query, *gradients[1:], *prefix, None, None, None


class FlashRibbon:
    """See the module.

    Args:
        geometry: Geometry of the pass.
        kernel: Variable-length attention kernel; by default the one available on this machine.
    """

    def __init__(self, geometry: RibbonGeometry, kernel: VarlenKernel | None = None):
        self.kernel = varlen_kernel() if kernel is None else kernel
        if QueryGrid not in geometry.arranged:
            geometry.arranged[QueryGrid] = QueryGrid(geometry)
        self.grid: QueryGrid = geometry.arranged[QueryGrid]

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        prefix_key: Tensor,
        prefix_value: Tensor,
        scaling: float | None,
        dropout: float,
    ) -> Tensor:
        """See ``RibbonAttention``.

        Raises:
            InputError: Attention dropout is set; the merge does not support it.
        """
        refuse_dropout("the flash ribbon", dropout)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        own_query, own_key, own_value = (rearrange(tensor, "h c d -> c h d") for tensor in (query, key, value))
        prefix = [rearrange(tensor, "b h s d -> (b s) h d") for tensor in (prefix_key, prefix_value)]
        if self.grid.columns is not None:
            # Its backward adds rows; that of tensor[index] sorts them first.
            prefix = [tensor.index_select(0, self.grid.columns) for tensor in prefix]
        return PrefixAndSelf.apply(own_query, own_key, own_value, *prefix, self.grid, self.kernel, scale)
