"""Next-token distillation (the paper, Eq. 2)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from align_ti.losses.batch import MicroBatch, Passes
from align_ti.losses.loss import LossConfig, RowLoss, factor
from align_ti.losses.rows import response_rows


@dataclass(frozen=True, kw_only=True)
class KDConfig(LossConfig):
    """Settings of the next-token KD loss."""

    section: ClassVar[str] = "kd"
    weight: float = factor("the next-token KD loss (Eq. 2)")


class KD(RowLoss[KDConfig]):
    """``1/L sum_k D(P_T, P_S)(. | x, y_<k)`` with the objective's divergence."""

    name = "kd"
    title = "KD (Eq. 2)"
    equation = r"\frac{1}{L} \sum_k D_{KL}(P_T \| P_S)(\cdot \mid x, y_{<k})"
    Config = KDConfig

    def weights(self, batch: MicroBatch, passes: Passes) -> Tensor:
        """1 at the positions that predict supervised tokens."""
        return response_rows(batch, passes)
