"""Next-token distillation over the teacher's ``k`` most likely tokens.

At each supervised token, ``D_KL(Q_T || Q_S)``, where ``Q_T`` and ``Q_S`` are the models' distributions restricted to
the teacher's ``k`` most likely tokens and renormalised over them. So the loss compares the proportions among
these tokens and says nothing about the student's mass on all others: combine it with ``sft`` or ``kd``. With ``k`` as
large as the vocabulary it is KD with the forward KL. The objective's temperature applies, ``--divergence`` does not.
Ties at the border are broken by ``torch.topk``.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar

from torch import Tensor

from align_ti.losses.batch import MicroBatch, Passes
from align_ti.losses.divergences import Divergence, forward_kl
from align_ti.losses.loss import LossConfig, RowLoss, factor
from align_ti.losses.rows import response_rows
from align_ti.settings import setting, whole


@dataclass(frozen=True, kw_only=True)
class TopKConfig(LossConfig):
    """Settings of the top-k loss; ``k`` is the number of the teacher's most likely tokens."""

    section: ClassVar[str] = "topk"
    weight: float = factor("the top-k KD loss")
    k: int = setting(
        64,
        "the teacher's likeliest tokens that the top-k KD loss compares, renormalised over these",
        whole(2, "a whole number of tokens, at least 2"),
    )


class TopK(RowLoss[TopKConfig]):
    """``1/L sum_k D_KL(Q_T || Q_S)(. | x, y_<k)``, in its own pass through both heads."""

    name = "topk"
    title = "top-k KD"
    equation = r"\frac{1}{L} \sum_k D_{KL}(Q_T \| Q_S)(\cdot \mid x, y_{<k})"
    Config = TopKConfig

    @cached_property  # one function, which torch.compile compiles once
    def compares(self) -> Divergence:
        """Both models on the teacher's most likely tokens."""
        return partial(topk_kl, k=self.config.k)

    def weights(self, batch: MicroBatch, passes: Passes) -> Tensor:
        """1 at the positions that predict supervised tokens."""
        return response_rows(batch, passes)


def topk_kl(student: Tensor, teacher: Tensor, k: int) -> Tensor:
    """Forward KL over the teacher's ``k`` most likely tokens, renormalised. Logits ``[rows, V]`` -> ``[rows]``."""
    likeliest = teacher.topk(min(k, teacher.shape[-1]), dim=-1)
    return forward_kl(student.gather(-1, likeliest.indices), likeliest.values)
