"""Supervised fine-tuning: the cross-entropy of the data's responses."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from align_ti.losses.batch import MicroBatch, Passes
from align_ti.losses.loss import Compares, LossConfig, RowLoss, Steps, factor
from align_ti.losses.rows import response_rows


@dataclass(frozen=True, kw_only=True)
class SFTConfig(LossConfig):
    """Settings of the supervised loss."""

    section: ClassVar[str] = "sft"
    weight: float = factor("the supervised loss")


class SFT(RowLoss[SFTConfig]):
    """``-1/L sum_k log P_S(y_k | x, y_<k)``."""

    name = "sft"
    title = "SFT"
    equation = r"-\frac{1}{L} \sum_k \log P_S(y_k \mid x, y_{<k})"
    Config = SFTConfig
    steps = Steps.DATA  # the data's responses alone are right answers

    @property
    def compares(self) -> Compares:
        """The student with the label."""
        return Compares.CROSS_ENTROPY

    def weights(self, batch: MicroBatch, passes: Passes) -> Tensor:
        """1 at the positions that predict supervised tokens."""
        return response_rows(batch, passes)
