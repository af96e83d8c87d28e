"""The attention pattern of a candidate pass: packed candidates against their samples' cached keys and values.

The response ``y_1 ... y_4`` with two draws ``a``, ``b`` at each of its steps 2 to 4. A candidate of ``y_k`` attends to
the columns before ``y_k`` (its *limit*) and to itself; no other row attends to it::

                   kept prefix: keys of the main pass       candidates' own keys
                   image    question  y1 y2 y3 y4           a2 b2 a3 b3 a4 b4
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

from dataclasses import dataclass, field
from typing import Any

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
    """All spans of a batch, on the CPU: what runs on a GPU is arranged by sizes that the host has to know.

    Attributes:
        spans: One span per sample of the batch, in order; ``candidates`` may be 0.
        limits: Long ``[C]``, on the CPU; a candidate attends to its sample's columns from ``start`` up to here, and to
            itself.
        length: Number of columns ``S`` of the cached prefix.
        device: Where the pass runs.
        ends: In a packed row, where each sample ends; None for a padded batch.
        arranged: What backends made of it, by their class, so that it is made once for both models.
    """

    spans: tuple[SampleSpan, ...]
    limits: Tensor
    length: int
    device: torch.device
    ends: tuple[int, ...] | None = None
    arranged: dict[type, Any] = field(default_factory=dict, compare=False, repr=False)


def ribbon_geometry(
    sample: Tensor,
    limits: Tensor,
    attention_mask: Tensor,
    bounds: Tensor | None = None,
    device: torch.device | None = None,
) -> RibbonGeometry:
    """Compute each sample's candidates and columns, on the CPU; tensors on a GPU are waited for.

    Args:
        sample: Long ``[C]``, row of the batch that each candidate belongs to, in ascending order.
        limits: Long ``[C]``, column of the token that each candidate replaces.
        attention_mask: Bool ``[B, S]``; the real tokens of a sample are contiguous.
        bounds: For a packed row (``B`` is 1): long ``[N + 1]``, boundaries of its samples.
        device: Where the pass runs; by default where ``limits`` is.

    Raises:
        InputError: There is padding inside a sample.
    """
    device = limits.device if device is None else device
    sample, limits, mask = sample.cpu(), limits.cpu(), attention_mask.cpu().long()
    batch, length = mask.shape
    ends = None
    if bounds is None:
        rows = torch.arange(batch)
        starts = mask.argmax(1)
        if not torch.equal(mask.cumsum(1).argmax(1) + 1, starts + mask.sum(1)):
            raise InputError("attention_mask has padding between real tokens; expected it on one side only")
    else:
        bounds = bounds.cpu()
        sample, starts = torch.searchsorted(bounds, limits, right=True) - 1, bounds[:-1]
        rows, ends = torch.zeros_like(starts), tuple(bounds[1:].tolist())
    candidates = torch.bincount(sample, minlength=len(starts))
    furthest = starts.scatter_reduce(0, sample, limits, "amax")
    numbers = torch.stack([rows, candidates, starts, furthest], dim=1).tolist()
    return RibbonGeometry(tuple(SampleSpan(*row) for row in numbers), limits, length, device, ends)
