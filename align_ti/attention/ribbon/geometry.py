"""The attention pattern of a candidate pass: packed candidates against their samples' cached keys and values.

The response ``y_1 ... y_4`` with two draws ``a``, ``b`` at each of its steps 2 to 4. A candidate of ``y_k`` attends to
the columns before ``y_k`` (its *limit*) and to itself; no other row attends to it::

                   kept prefix: keys of the main pass       candidates' own keys
                   picture  question  y1 y2 y3 y4           a2 b2 a3 b3 a4 b4
    candidate a2   # # # #  # # # #   #  .  .  .            #  .  .  .  .  .
              b2   # # # #  # # # #   #  .  .  .            .  #  .  .  .  .
              a3   # # # #  # # # #   #  #  .  .            .  .  #  .  .  .
              b3   # # # #  # # # #   #  #  .  .            .  .  .  #  .  .
              a4   # # # #  # # # #   #  #  #  .            .  .  .  .  #  .
              b4   # # # #  # # # #   #  #  #  .            .  .  .  .  .  #

The staircase on the left and the diagonal on the right are the ribbon. The backends differ in how they compute it:
``sdpa`` builds this mask in blocks, ``flex`` expresses it as a function, and ``flash`` runs the staircase as causal
attention and merges the diagonal in.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from llava.errors import InputError


@dataclass(frozen=True)
class SampleSpan:
    """One sample's share of a candidate pass.

    Attributes:
        row: Row of the cached prefix ``[B, H_kv, S, D]`` that contains the sample.
        candidates: Number of candidates.
        start, stop: Range of the row's columns that they attend to, up to their limits.
    """

    row: int
    candidates: int
    start: int
    stop: int


@dataclass(frozen=True)
class RibbonGeometry:
    """All spans of a batch.

    Attributes:
        spans: One span per sample of the batch, in order; ``candidates`` may be 0.
        limits: long ``[C]``; a candidate attends to its sample's columns from ``start`` up to here, and to itself.
        length: Number of columns ``S`` of the cached prefix.
        groups: Number of query heads per key head.
    """

    spans: tuple[SampleSpan, ...]
    limits: Tensor
    length: int
    groups: int


def ribbon_geometry(
    sample: Tensor, limits: Tensor, attention_mask: Tensor, groups: int, bounds: Tensor | None = None
) -> RibbonGeometry:
    """Compute each sample's candidates and columns.

    Args:
        sample: long ``[C]``, row of the batch that each candidate belongs to, in ascending order.
        limits: long ``[C]``, column of the token that each candidate replaces.
        attention_mask: bool ``[B, S]``; the real tokens of a sample are contiguous.
        groups: Number of query heads per key head.
        bounds: For a packed row (``B`` is 1): long ``[N + 1]``, boundaries of its samples.

    Raises:
        InputError: There is padding inside a sample.
    """
    mask = attention_mask.long()
    batch, length = mask.shape
    if bounds is None:
        rows = torch.arange(batch, device=mask.device)
        starts = mask.argmax(1)
        if not torch.equal(mask.cumsum(1).argmax(1) + 1, starts + mask.sum(1)):
            raise InputError("attention_mask has padding between real tokens; expected it on one side only")
    else:
        sample, starts = torch.searchsorted(bounds, limits, right=True) - 1, bounds[:-1]
        rows = torch.zeros_like(starts)
    candidates = torch.bincount(sample, minlength=len(starts))
    furthest = starts.scatter_reduce(0, sample, limits, "amax")
    numbers = torch.stack([rows, candidates, starts, furthest], dim=1).tolist()
    return RibbonGeometry(tuple(SampleSpan(*row) for row in numbers), limits, length, groups)
