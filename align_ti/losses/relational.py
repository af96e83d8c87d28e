"""Relational distillation of visual tokens (LLaVA-KD's RDist, arXiv 2410.16236), which the paper compares with.

``L_rel = 1 - cos(vec R_S, vec R_T)`` a sample, where ``R [N_v, N_v]`` is the similarity of a model's outputs at two
visual tokens: the cosine of their logits, or the plain product ``Y Y^T``.

Logits, not hidden states: LLaVA-KD takes the visual tokens from the language model's output logits (its authors say so
in answer to the first question on their repository), the same rows that its visual alignment compares. They are never
made here: ``Y Y^T = H (W^T W) H^T`` needs the hidden states ``H [N_v, D]`` and a matrix ``[D, D]`` of the head ``W``.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cosine_similarity

from align_ti.losses.batch import Denominator, MicroBatch
from align_ti.losses.loss import HeadLoss, LossConfig, Reads, factor
from align_ti.numerics import exact_dtype, head_rows
from align_ti.settings import one_of, setting

SIMILARITIES = ("cosine", "product")
"""How two tokens' logits are compared. LLaVA-KD's self-correlation is the product; the cosine leaves lengths out."""


@dataclass(frozen=True, kw_only=True)
class RelationalConfig(LossConfig):
    """Settings of relational distillation; ``similarity`` is of two tokens' logits, see ``SIMILARITIES``."""

    section: ClassVar[str] = "rel"
    weight: float = factor("the relational loss (LLaVA-KD)")
    similarity: str = setting(
        "cosine",
        f"of two visual tokens' logits, one of {', '.join(SIMILARITIES)} (LLaVA-KD's)",
        one_of(SIMILARITIES),
    )


class RelationalLoss(HeadLoss[RelationalConfig]):
    """``L_rel``; caches the second moment of the frozen teacher's head."""

    name = "rel"
    title = "relations of visual tokens (LLaVA-KD)"
    equation = r"1 - \cos(\mathrm{vec} \, R_S, \mathrm{vec} \, R_T)"
    unit = "1 - cosine"
    Config = RelationalConfig
    reads = Reads.VISUAL_PAIRS

    def __init__(self, config: RelationalConfig) -> None:
        super().__init__(config)
        self.teacher_moment: Tensor | None = None

    @property
    def denominator(self) -> Denominator:
        """Samples with an image."""
        return Denominator.IMAGES

    def rows(self, batch: MicroBatch) -> Tensor:
        """The visual tokens, sample by sample."""
        return batch.visual_places[0]

    def compute(
        self,
        student_hidden: Tensor,
        student_weight: Tensor,
        teacher_hidden: Tensor,
        teacher_weight: Tensor,
        *,
        batch: MicroBatch,
        count: Tensor,
        compiled: bool,
    ) -> tuple[Tensor]:
        """See ``HeadLoss.compute``."""
        sample = batch.visual_places[1]
        total = self.over_samples(student_hidden, student_weight, teacher_hidden, teacher_weight, sample)
        return (total / count,)

    def over_samples(
        self,
        student_hidden: Tensor,
        student_weight: Tensor,
        teacher_hidden: Tensor,
        teacher_weight: Tensor,
        sample: Tensor,
    ) -> Tensor:
        """The sum of ``L_rel`` over the samples with an image, differentiable in the student's two tensors.

        Logits are compared over the vocabulary rows both heads have. Computed in float32 (float64 stays float64).

        Args:
            student_hidden: ``[R, D_s]`` at visual tokens, sample by sample.
            student_weight: ``[V_s, D_s]``, the head without bias.
            teacher_hidden: ``[R, D_t]``, row for row with the student's.
            teacher_weight: ``[V_t, D_t]``.
            sample: Long ``[R]``, the sample of each row.
        """
        common = min(len(student_weight), len(teacher_weight))
        with torch.autocast(student_hidden.device.type, enabled=False):
            if self.teacher_moment is None:
                self.teacher_moment = second_moment(teacher_weight.detach(), common)
            moment = second_moment(student_weight, common)
            hidden, taught = student_hidden.to(moment.dtype), teacher_hidden.detach().to(self.teacher_moment.dtype)
            counts = torch.bincount(sample).tolist()
            total = hidden.sum() * 0 + moment.sum() * 0  # every rank has the same graph, without an image too
            for ours, theirs in zip(hidden.split(counts), taught.split(counts), strict=True):
                if len(ours):
                    learnt = relations(ours, moment, self.config.similarity)
                    wanted = relations(theirs, self.teacher_moment, self.config.similarity)
                    total = total + 1 - cosine_similarity(learnt.flatten(), wanted.to(learnt).flatten(), dim=0)
        return total


def relations(hidden: Tensor, moment: Tensor, similarity: str) -> Tensor:
    """``R [N, N]`` of tokens ``[N, D]`` whose head has the second moment ``[D, D]``."""
    products = hidden @ moment @ hidden.T
    if similarity == "product":
        return products
    lengths = products.diagonal().clamp(min=torch.finfo(products.dtype).tiny).sqrt()
    return products / (lengths[:, None] * lengths)


def second_moment(weight: Tensor, rows: int) -> Tensor:
    """``W^T W`` of the first ``rows`` of a head ``[V, D]`` -> ``[D, D]``, a block of rows at a time."""
    return _SecondMoment.apply(weight, rows)


class _SecondMoment(torch.autograd.Function):
    """Holds the head alone for the backward: no copy of it in float32."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: int) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.rows = rows
        exact = exact_dtype(weight)
        moment = weight.new_zeros(weight.shape[1], weight.shape[1], dtype=exact)
        for block in weight[:rows].split(head_rows(weight)):
            block = block.to(exact)
            moment.addmm_(block.T, block)
        return moment

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        both = grad + grad.T
        out = torch.zeros_like(weight)
        size = head_rows(weight)
        for start in range(0, ctx.rows, size):
            stop = min(start + size, ctx.rows)
            out[start:stop] = (weight[start:stop].to(grad.dtype) @ both).to(weight.dtype)
        return out, None
