"""Instruction-aware Vision Alignment (the paper, Eq. 4).

``L_iva = sum_k (1/N_i) sum_u A(u, k) KL(P_T || P_S)(v_k)``: the divergence at the output of each visual
token, weighted by how much the instruction attends to it in the teacher's layer ``l*``. The paper compares with the
student's own attention (Table 8) and with equal weights (Table 6).
"""

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from align_ti.losses.batch import Denominator, MicroBatch, Passes
from align_ti.losses.drawn_rows import drawn_weights
from align_ti.losses.loss import AttentionMap, LossConfig, Reads, RowLoss, factor
from align_ti.losses.rows import WeightedRows
from align_ti.settings import Rule, is_whole, one_of, setting, whole
from align_ti.transfer import send

IVA_WEIGHTS = {"teacher": "teacher", "student": "student", "uniform": None, "teacher_mean": "teacher"}
"""Kinds of weights, and the model whose attention they use. ``uniform`` uses none; ``teacher_mean`` spreads the
teacher's total attention to an image evenly over its tokens."""

LAYER = re.compile(r"auto|\d+|(\d{1,2}|100)%", re.ASCII)


def _is_layer(value: Any) -> bool:
    return LAYER.fullmatch(value) is not None if isinstance(value, str) else is_whole(value, 0)


@dataclass(frozen=True, kw_only=True)
class IVAConfig(LossConfig):
    """Settings of instruction-aware vision alignment.

    Attributes:
        layer: The layer ``l*`` of the model whose attention gives the weights; ``uniform`` needs none.
        weights: Where the weights come from: ``teacher`` (the paper), ``student`` (its Table 8), ``uniform`` (its
            Table 6) or ``teacher_mean`` (between the first and the last).
        rows: Visual tokens of a sample that are used, drawn by weight; 0 for all. The loss is then an unbiased
            estimate, and so is its gradient.
    """

    section: ClassVar[str] = "iva"
    weight: float = factor("the IVA loss (Eq. 4)")
    layer: int | str = setting(
        "auto",
        "layer of the attention maps, of the model that --iva_weights names: a number from 0, a depth in percent, or "
        "auto",
        Rule(_is_layer, "a layer number from 0, a depth from 0% to 100%, or auto"),
        flag_type=str,
    )
    weights: str = setting(
        "teacher",
        f"whose attention, one of {', '.join(IVA_WEIGHTS)}: the paper's, Table 8's, Table 6's, and the teacher's, "
        "spread evenly over the image",
        one_of(tuple(IVA_WEIGHTS)),
    )
    rows: int = setting(
        0,
        "visual tokens of a sample, drawn by weight, from which IVA is estimated without bias; 0 takes all",
        whole(0, "a whole number of visual tokens, or 0 for all"),
    )


class IVA(RowLoss[IVAConfig]):
    """``sum_k w_k D(P_T, P_S)(. | v_<=k)`` over the visual tokens of a sample, the mean over the samples."""

    name = "iva"
    title = "IVA (Eq. 4)"
    equation = r"\sum_k w_k \, D_{KL}(P_T \| P_S)(\cdot \mid v_{\leq k})"
    unit = "nats per sample"
    Config = IVAConfig
    reads = Reads.VISUAL_TOKENS

    @property
    def denominator(self) -> Denominator:
        """Samples whose visual tokens have weights: equal ones need no instruction."""
        return Denominator.IMAGES if self.config.weights == "uniform" else Denominator.INSTRUCTED_IMAGES

    @property
    def attention(self) -> AttentionMap | None:
        """The map that gives the weights."""
        of = IVA_WEIGHTS[self.config.weights]
        return None if of is None else AttentionMap(of, self.config.layer, self.config.path("layer"))

    @property
    def visual_rows(self) -> int:
        """Number of visual tokens drawn per sample; 0 for all."""
        return self.config.rows

    def weights(self, batch: MicroBatch, passes: Passes) -> WeightedRows:
        """The visual tokens with their weights, or those that are drawn."""
        index, sample = batch.visual_places
        if self.config.weights == "uniform":
            rows = uniform_rows(index, sample)
        else:
            assert passes.attention is not None
            rows = iva_rows(passes.attention, index)
            if self.config.weights == "teacher_mean":
                rows = even_rows(rows, sample)
        return some_rows(rows, self.config.rows, batch) if 0 < self.config.rows < batch.most_visual else rows


def iva_rows(attention: Tensor, index: Tensor) -> WeightedRows:
    """The visual positions of a batch with their weights.

    The weights of a sample are not renormalised: the softmax is over the whole row, so they sum to at
    most 1. A text-only sample has no rows; a sample without instruction tokens has rows of weight 0.

    Args:
        attention: ``[B, S]``, the mean instruction attention of the teacher (or the student) at ``l*``; no gradient
            flows into it.
        index: Long ``[R]``, positions of the visual tokens in ``[B * S]``.
    """
    return WeightedRows(index, attention.detach().flatten()[index])


def uniform_rows(index: Tensor, sample: Tensor) -> WeightedRows:
    """The visual positions of a batch, all of a sample with the same weight ``1 / N_v``.

    LLaVA-KD's alignment of visual tokens (arXiv 2410.16236), which the paper compares IVA with (Table 6). The weights
    of a sample sum to 1; a sample needs no instruction.

    Args:
        index: Long ``[R]``, positions of the visual tokens in ``[B * S]``.
        sample: Long ``[R]``, the sample of each visual token.
    """
    return WeightedRows(index, 1 / torch.bincount(sample)[sample].double())


def even_rows(rows: WeightedRows, sample: Tensor) -> WeightedRows:
    """The same rows, each with the mean weight of its sample.

    Between IVA and equal weights: the same total as IVA, equal within an image. Attention sums to less than 1 over an
    image and equal weights to 1, so a comparison of these two alone also compares the size of the loss.

    Args:
        rows: Result of :func:`iva_rows`.
        sample: Long ``[R]``, the sample of each visual token.
    """
    number = torch.bincount(sample)
    total = torch.zeros_like(number, dtype=rows.weight.dtype).index_add_(0, sample, rows.weight)
    return WeightedRows(rows.index, (total / number)[sample])


def some_rows(rows: WeightedRows, number: int, batch: MicroBatch) -> WeightedRows:
    """``number`` rows of each sample that stand for all, see :func:`drawn_weights`; where fewer are drawn, some of them
    have weight 0. Their number is known beforehand, so that a GPU is not waited for.

    Args:
        rows: Visual positions of a batch.
        number: How many of each sample, at least 1.
        batch: The batch. A sample's draws depend on the run's seed, the step and the sample alone.
    """
    assert batch.numbers is not None
    uniform = send(batch.numbers.one_each(b"IVA's rows"), rows.weight.device)
    place, shape = batch.by_sample(rows.index)
    table = rows.weight.new_zeros(shape)
    table.view(-1)[place] = rows.weight
    drawn, columns = drawn_weights(table, number, uniform).topk(number, dim=1)
    return WeightedRows(batch.index_of(columns).flatten(), drawn.flatten())
