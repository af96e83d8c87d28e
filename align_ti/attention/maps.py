"""Instruction-to-vision attention of a layer, computed from its queries and keys.

Only the rows of instruction tokens are computed, so the model keeps its fast attention and no ``S x S`` matrix is
built.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from align_ti.numerics import exact_dtype
from align_ti.transfer import send

ROWS_AT_ONCE = 256
"""Instruction rows of a sample per block: their scores (heads x rows x S, float32) are in memory at the same time."""


@dataclass(frozen=True)
class MapRequest:
    """The maps to record during a forward pass.

    Attributes:
        layers: Decoder layers, counted from 0.
        instruction_mask: Bool ``[B, S]``, rows whose attention is averaged.
        attention_mask: Bool ``[B, S]``, True at real tokens. From the CPU, masks are not waited for.
        spans: For a packed row ``[1, T]``: ``(start, stop)`` of each of its samples.
    """

    layers: frozenset[int]
    instruction_mask: Tensor
    attention_mask: Tensor
    spans: tuple[tuple[int, int], ...] | None = None


@torch.no_grad()
def mean_instruction_attention(
    query: Tensor,
    key: Tensor,
    instruction_mask: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    spans: tuple[tuple[int, int], ...] | None = None,
) -> Tensor:
    """Mean over heads and instruction rows of causal attention, ``(1/N_i) sum_u A(u, k)`` of Eq. 4.

    The softmax of a row runs over all positions it attends to, without padding, in float32 or better. No gradient
    flows.

    Args:
        query: ``[B, H, S, D]`` with positions applied.
        key: ``[B, H_kv, S, D]``; ``H`` a multiple of ``H_kv``.
        instruction_mask: Bool ``[B, S]``, rows whose attention is averaged.
        attention_mask: Bool ``[B, S]``, True at real tokens. Masks on a GPU are waited for.
        scaling: Factor of the scores; ``D ** -0.5`` by default.
        spans: For a packed row (``B`` is 1): ``(start, stop)`` of each sample; a sample attends only to itself.

    Returns:
        ``[B, S]``; each sample's row sums to 1, or is zero for a sample without instruction tokens.
    """
    batch, heads, length, width = query.shape
    groups = heads // key.shape[1]
    scaling = width**-0.5 if scaling is None else scaling
    dtype = exact_dtype(query)
    real = attention_mask.cpu()
    instructions, attention_mask = instruction_mask.cpu() & real, send(real, query.device)
    weights = torch.zeros(batch, length, dtype=dtype, device=query.device)
    places = [(row, 0, length) for row in range(batch)] if spans is None else [(0, *span) for span in spans]
    for row, start, stop in places:
        rows = send(instructions[row, start:stop].nonzero().flatten(), query.device)
        if not len(rows):
            continue
        keys = rearrange(key[row, :, start:stop].to(dtype), "kv s d -> kv 1 d s")
        columns = torch.arange(stop - start, device=query.device)
        # Only the instruction's rows, a few hundred at a time: S x S scores of all heads would not fit at S = 2048.
        total = torch.zeros(stop - start, dtype=dtype, device=query.device)
        for block in rows.split(ROWS_AT_ONCE):
            queries = rearrange(query[row][:, start + block].to(dtype), "(kv g) r d -> kv g r d", g=groups)
            visible = (columns <= block[:, None]) & attention_mask[row, start:stop]
            with torch.autocast(query.device.type, enabled=False):
                scores = (queries @ keys * scaling).masked_fill(~visible, -torch.inf)
            total += scores.softmax(-1).sum((0, 1, 2))
        weights[row, start:stop] = total / (len(rows) * heads)
    return weights
