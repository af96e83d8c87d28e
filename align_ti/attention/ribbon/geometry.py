"""Who sees what in a candidate pass: packed candidates against their samples' kept keys and values.

The response ``y_1 ... y_4`` with two draws ``a``, ``b`` at each of its steps 2 to 4. A candidate of ``y_k`` sees the
columns before ``y_k`` (its *limit*) and itself; no row sees a candidate::

                   kept prefix: keys of the main pass       candidates' own keys
                   picture  question  y1 y2 y3 y4           a2 b2 a3 b3 a4 b4
    candidate a2   # # # #  # # # #   #  .  .  .            #  .  .  .  .  .
              b2   # # # #  # # # #   #  .  .  .            .  #  .  .  .  .
              a3   # # # #  # # # #   #  #  .  .            .  .  #  .  .  .
              b3   # # # #  # # # #   #  #  .  .            .  .  .  #  .  .
              a4   # # # #  # # # #   #  #  #  .            .  .  .  .  #  .
              b4   # # # #  # # # #   #  #  #  .            .  .  .  .  .  #

The staircase on the left and the diagonal on the right are the ribbon. The backends differ in how they compute it:
``sdpa`` builds this mask in blocks, ``flex`` gives it as a function, ``flash`` runs the staircase as causal attention
and merges the diagonal in.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

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


def ribbon_geometry(
    sample: Tensor, limits: Tensor, attention_mask: Tensor, groups: int, bounds: Tensor | None = None
) -> RibbonGeometry:
    """Work out each sample's candidates and columns.

    Args:
        sample: long ``[C]``, row of the batch that each candidate belongs to, in ascending order.
        limits: long ``[C]``, column of the token in whose place each candidate stands.
        attention_mask: bool ``[B, S]``; the real tokens of a sample are one block.
        groups: query heads a key head.
        bounds: For a packed row (then ``B`` is 1): long ``[N + 1]``, where its samples begin and the last ends.

    Raises:
        InputError: padding inside a sample.
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
