"""Weighted rows of a batch's hidden states: the form in which every loss hands its work to the heads."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class WeightedRows:
    """``index``: long ``[R]`` into ``hidden.flatten(0, 1)``, i.e. ``[B * S]``. ``weight``: ``[R]``, the row's
    factor in the loss, means not yet taken."""

    index: Tensor
    weight: Tensor
