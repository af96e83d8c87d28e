"""Weighted rows of a batch's hidden states: the form in which losses hand their work to the heads."""

from dataclasses import dataclass

from torch import Tensor

from align_ti.losses.batch import MicroBatch, Passes
from align_ti.numerics import exact_dtype


@dataclass(frozen=True)
class WeightedRows:
    """``index``: long ``[R]`` into ``hidden.flatten(0, 1)``, i.e. ``[B * S]``. ``weight``: ``[R]``, the row's
    factor in the loss, means not yet taken."""

    index: Tensor
    weight: Tensor


def no_rows(passes: Passes) -> Tensor:
    """Weight 0 for each row of a step, ``[B * S + C]``, in the dtype that losses are summed in."""
    return passes.student_main.new_zeros(passes.rows, dtype=exact_dtype(passes.student_main))


def response_rows(batch: MicroBatch, passes: Passes) -> Tensor:
    """Weight 1 at the positions that predict supervised tokens, ``[B * S + C]``."""
    out = no_rows(passes)
    out[batch.supervised.predicting] = 1.0
    return out
