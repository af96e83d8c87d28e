"""Instruction-aware Vision Alignment (the paper, Eq. 4).

``L_iva = sum_k (1/N_i) sum_u A(u, k) KL(P_T || P_S)(v_k)``: the divergence at the output of each visual
token, weighted by how much the instruction looks at it in the teacher's layer ``l*``. The paper compares with the
student's own attention (Table 8) and with equal weights (Table 6).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from align_ti.losses.rows import WeightedRows
from llava.constants import IMAGE_TOKEN_INDEX

IVA_WEIGHTS = {"teacher": "teacher", "student": "student", "uniform": None, "teacher_mean": "teacher"}
"""The kinds of weights, and whose attention they need: that of one of the models, nobody's, or the teacher's to the
whole picture, spread evenly."""


def iva_rows(attention: Tensor, visual_mask: Tensor) -> WeightedRows:
    """The visual positions of a batch with their importance.

    The weights of a sample are not renormalised: the softmax ran over the whole row, so they sum to at
    most 1. A text-only sample has no rows; one without instruction tokens has rows of weight 0.

    Args:
        attention: ``[B, S]``, the mean instruction attention of the teacher (or the student) at ``l*``; no gradient
            flows into it.
        visual_mask: bool ``[B, S]``, True at visual tokens.
    """
    index = visual_mask.flatten().nonzero().flatten()
    return WeightedRows(index, attention.detach().flatten()[index])


def uniform_rows(index: Tensor, sample: Tensor) -> WeightedRows:
    """The visual positions of a batch, all of a sample with the same weight ``1 / N_v``.

    LLaVA-KD's alignment of visual tokens (arXiv 2410.16236), which the paper compares IVA with (Table 6). The weights
    of a sample sum to 1; a sample needs no instruction.

    Args:
        index: long ``[R]``, where the visual tokens stand in ``[B * S]``.
        sample: long ``[R]``, the sample of each.
    """
    return WeightedRows(index, 1 / torch.bincount(sample)[sample].double())


def even_rows(rows: WeightedRows, sample: Tensor) -> WeightedRows:
    """The same rows, each with the mean weight of its sample's.

    Between IVA and equal weights: as strong as the former, as blind as the latter. Attention sums to less than 1 over a
    picture, equal weights to 1, so comparing these two alone compares the size of the loss as well.

    Args:
        rows: of :func:`iva_rows`.
        sample: long ``[R]``, the sample of each.
    """
    number = torch.bincount(sample)
    total = torch.zeros_like(number, dtype=rows.weight.dtype).index_add_(0, sample, rows.weight)
    return WeightedRows(rows.index, (total / number)[sample])


def iva_samples(batch: Mapping[str, Any]) -> Tensor:
    """Samples of a collated batch that attention weighs: an image and an instruction. Integer scalar."""
    return (_has_image(batch) & batch["instruction_mask"].any(1)).sum()


def image_samples(batch: Mapping[str, Any]) -> Tensor:
    """Samples of a collated batch with an image: those that equal weights and relations apply to. Integer scalar."""
    return _has_image(batch).sum()


def _has_image(batch: Mapping[str, Any]) -> Tensor:
    return (batch["input_ids"] == IMAGE_TOKEN_INDEX).any(1)
