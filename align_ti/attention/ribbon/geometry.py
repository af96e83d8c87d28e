"""Who sees what in a candidate pass: packed candidates against their samples' kept keys and values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from align_ti.candidates.layout import CandidateLayout
from llava.errors import InputError


@dataclass(frozen=True)
class SampleSpan:
    """One sample's share of a candidate pass.

    Attributes:
        row: row of the kept prefix ``[B, H_kv, S, D]`` that holds the sample.
        candidates: how many candidates it has.
        start, stop: columns of the row that they see, before their limits.
    """

    row: int
    candidates: int
    start: int
    stop: int


@dataclass(frozen=True)
class RibbonGeometry:
    """All spans of a batch.

    Attributes:
        spans: one a sample of the batch, in order; ``candidates`` may be 0.
        limits: long ``[C]``; a candidate sees its sample's columns from ``start`` up to here, and itself.
        length: columns ``S`` of the kept prefix.
        groups: query heads a key head.
    """

    spans: tuple[SampleSpan, ...]
    limits: Tensor
    length: int
    groups: int


class RibbonAttention(Protocol):
    """Attention of one layer of a candidate pass."""

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
        """``query [H, C, D]``, own ``[H_kv, C, D]``, prefix ``[B, H_kv, S, D]`` -> ``[C, H, D]``."""
        ...


@dataclass(frozen=True)
class RibbonPass:
    """Handed to ``decoder(..., ribbon=...)``: the kept prefix by layer, and the attention that reads it."""

    keys: Mapping[int, Tensor]
    values: Mapping[int, Tensor]
    attention: RibbonAttention

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float
    ) -> Tensor:
        """Packed candidates ``[1, H, C, D]`` -> ``[1, C, H, D]``."""
        prefix_key, prefix_value = self.keys[layer], self.values[layer]
        return self.attention(query[0], key[0], value[0], prefix_key, prefix_value, scaling, dropout)[None]


def ribbon_geometry(
    layout: CandidateLayout, attention_mask: Tensor, groups: int, bounds: Tensor | None = None
) -> RibbonGeometry:
    """Work out each sample's candidates and columns.

    Args:
        layout: the candidates, in the order of their samples.
        attention_mask: bool ``[B, S]``; the real tokens of a sample are one block.
        groups: query heads a key head.
        bounds: of a packed row (then ``B`` is 1): long ``[N + 1]``, where its samples begin and the last ends.

    Raises:
        InputError: padding inside a sample.
    """
    mask = attention_mask.long()
    batch, length = mask.shape
    if bounds is None:
        sample, rows = layout.sample, torch.arange(batch, device=mask.device)
        starts = mask.argmax(1)
        if not torch.equal(mask.cumsum(1).argmax(1) + 1, starts + mask.sum(1)):
            raise InputError("attention_mask has padding between real tokens; expected it on one side only")
    else:
        sample, starts = torch.searchsorted(bounds, layout.limit, right=True) - 1, bounds[:-1]
        rows = torch.zeros_like(starts)
    candidates = torch.bincount(sample, minlength=len(starts))
    furthest = starts.scatter_reduce(0, sample, layout.limit, "amax")
    numbers = torch.stack([rows, candidates, starts, furthest], dim=1).tolist()
    return RibbonGeometry(tuple(SampleSpan(*row) for row in numbers), layout.limit, length, groups)


def refuse_dropout(what: str, dropout: float) -> None:
    """Raise ``InputError`` if an attention that has no dropout is asked for some."""
    if dropout:
        raise InputError(
            f"{what} has no dropout, found attention_dropout {dropout}: use --ribbon_backend sdpa or set it 0"
        )
