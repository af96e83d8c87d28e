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


class QueryGrid:
    """Candidates arranged in rows and slots of a varlen call, and the prefix columns it reads.

    A sample's rows run from the column before its first limit to the column before its last; candidates with the same
    limit take slots 0, 1, ... of one row. Candidates that see nothing but themselves are left out.

    Attributes:
        columns: long ``[T_k]``, prefix columns to read, indices into ``[B * S]``.
        segments: Segments of the call.
        seen: long ``[C']``, candidates with a prefix; row, slot: long ``[C']``, their positions in the grid.
        rows, slots: Size of the grid.
    """

    def __init__(self, geometry: RibbonGeometry) -> None:
        device = geometry.limits.device
        starts, firsts, keys, queries, counts = [], [], [], [], []
        limits = geometry.limits.split([span.candidates for span in geometry.spans])
        first_limits = torch.stack([mine[0] for mine in limits if len(mine)]).tolist()
        # One grid row for every column from a sample's first limit to its last, so that the kernel's causal mask, which
        # is aligned at the end, gives row i exactly the prefix columns before its limit.
        for span in geometry.spans:
            if not span.candidates:
                continue
            first = max(first_limits.pop(0), span.start + 1)  # a limit at the start has no prefix and no row
            counts.append(span.candidates)
            firsts.append(first)
            starts.append(span.row * geometry.length + span.start)
            keys.append(span.stop - span.start)
            queries.append(max(0, span.stop - first + 1))
        lengths_q, lengths_k = torch.tensor(queries), torch.tensor(keys)
        of = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(device)  # span of each candidate
        row = (lengths_q.cumsum(0) - lengths_q - torch.tensor(firsts)).to(device)[of] + geometry.limits
        self.seen = (geometry.limits >= torch.tensor(firsts, device=device)[of]).nonzero().flatten()
        self.row = row[self.seen]
        self.rows = int(lengths_q.sum())
        # Draws of the same step share a row: they see the same prefix, so they can be further query heads of it.
        self.slot, self.slots = _ranks(self.row)
        # Keys of all samples in one row, padding left out; built on the CPU and sent to the device once.
        span_of = torch.arange(len(keys)).repeat_interleave(lengths_k)
        offset = torch.tensor(starts) - (lengths_k.cumsum(0) - lengths_k)
        self.columns = (torch.arange(int(lengths_k.sum())) + offset[span_of]).to(device)
        self.segments = Segments(
            _cumulative(lengths_q).to(device), _cumulative(lengths_k).to(device), max(queries), max(keys)
        )

    def spread(self, packed: Tensor, key_heads: int) -> Tensor:
        """Candidates ``[C, H, ...]`` -> grid ``[rows, H_kv * slots * groups, ...]``, zero in empty slots."""
        heads = rearrange(packed[self.seen], "c (kv g) ... -> c kv g ...", kv=key_heads)
        grid = heads.new_zeros(self.rows, self.slots, *heads.shape[1:])
        grid[self.row, self.slot] = heads
        return rearrange(grid, "r slot kv g ... -> r (kv slot g) ...").contiguous()

    def gather(self, grid: Tensor, like: Tensor, key_heads: int, missing: float = 0.0) -> Tensor:
        """The inverse of ``spread``, in the shape of ``like``; ``missing`` for candidates without a slot."""
        heads = rearrange(grid, "r (kv slot g) ... -> r slot kv g ...", kv=key_heads, slot=self.slots)
        packed = grid.new_full(like.shape, missing)
        packed[self.seen] = rearrange(heads[self.row, self.slot], "c kv g ... -> c (kv g) ...")
        return packed


def _ranks(values: Tensor) -> tuple[Tensor, int]:
    """Rank of each entry among its equal neighbours, from 0, and the largest number of equal entries (at least 1)."""
    _, counts = torch.unique_consecutive(values, return_counts=True)
    before = (counts.cumsum(0) - counts).repeat_interleave(counts)
    most = int(counts.max()) if len(counts) else 1
    return torch.arange(len(values), device=values.device) - before, most


def _cumulative(lengths: Tensor) -> Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).to(torch.int32)


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
        key_heads = key.shape[1]
        own, own_value = _own_score(query, key, scale), _repeat(value, query)
        grid_lse = own.new_full((grid.rows, key_heads * grid.slots * (query.shape[1] // key_heads)), -torch.inf)
        out, lse = query.new_zeros(query.shape), torch.full_like(own, -torch.inf)
        if grid.rows:
            grid_out, grid_lse = kernel.forward(
                grid.spread(query, key_heads), prefix_key, prefix_value, grid.segments, scale
            )
            out = grid.gather(grid_out, query, key_heads)
            lse = grid.gather(grid_lse.to(own.dtype), own, key_heads, missing=-torch.inf)
        # The candidate's own key as one more block, in FlashAttention's way: weigh both parts by their share of the
        # softmax's denominator. A candidate without a prefix has lse = -inf and takes its own value alone.
        merged = torch.logaddexp(lse, own)
        share, own_share = (lse - merged).exp()[..., None], (own - merged).exp()[..., None]
        result = (share * out + own_share * own_value).to(query.dtype)
        ctx.save_for_backward(query, key, value, prefix_key, prefix_value, result, merged)
        ctx.grid, ctx.kernel, ctx.scale = grid, kernel, scale
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """See the class."""
        query, key, value, prefix_key, prefix_value, result, lse = ctx.saved_tensors
        grid, scale, key_heads = ctx.grid, ctx.scale, key.shape[1]
        share = (_own_score(query, key, scale) - lse).exp()
        # Softmax's gradient at the own key: share * (grad . v - grad . out), `result` being the output over all keys.
        wide = grad.to(lse.dtype)
        slope = (wide * (_repeat(value, query) - result)).sum(-1) * share * scale
        grad_query = (slope[..., None] * _repeat(key, query)).to(query.dtype)
        grad_key = _sum_groups(slope[..., None] * query, key_heads).to(key.dtype)
        grad_value = _sum_groups(share[..., None] * wide, key_heads).to(value.dtype)
        grad_prefix_key, grad_prefix_value = torch.zeros_like(prefix_key), torch.zeros_like(prefix_value)
        if grid.rows:
            # Given the output and log-sum-exp over all keys, the kernel returns the prefix's share of the gradient.
            grid_grad, grad_prefix_key, grad_prefix_value = ctx.kernel.backward(
                grid.spread(grad, key_heads),
                grid.spread(query, key_heads),
                prefix_key,
                prefix_value,
                grid.spread(result, key_heads),
                grid.spread(lse, key_heads),
                grid.segments,
                scale,
            )
            grad_query = grad_query + grid.gather(grid_grad, query, key_heads)
        return grad_query, grad_key, grad_value, grad_prefix_key, grad_prefix_value, None, None, None


def _repeat(heads: Tensor, query: Tensor) -> Tensor:
    """``[C, H_kv, D]`` -> ``[C, H, D]``."""
    return heads.repeat_interleave(query.shape[1] // heads.shape[1], dim=1)


def _own_score(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Scaled score of each candidate with itself, ``[C, H]``, float32 or better."""
    exact = exact_dtype(query)
    return (query.to(exact) * _repeat(key, query).to(exact)).sum(-1) * scale


def _sum_groups(heads: Tensor, key_heads: int) -> Tensor:
    """``[C, H, D]`` summed over the query heads of a key head."""
    return rearrange(heads, "c (kv g) d -> c kv g d", kv=key_heads).sum(2)


class FlashRibbon:
    """See the module.

    Args:
        geometry: Geometry of the pass.
        kernel: Variable-length attention kernel; by default the one available on this machine.
    """

    def __init__(self, geometry: RibbonGeometry, kernel: VarlenKernel | None = None):
        self.kernel = varlen_kernel() if kernel is None else kernel
        self.grid = QueryGrid(geometry)

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
        seen_key, seen_value = (
            # Its backward adds rows; that of tensor[index] sorts them first.
            rearrange(tensor, "b h s d -> (b s) h d").index_select(0, self.grid.columns)
            for tensor in (prefix_key, prefix_value)
        )
        return PrefixAndSelf.apply(own_query, own_key, own_value, seen_key, seen_value, self.grid, self.kernel, scale)
