"""Instruction-aware Vision Alignment (the paper, Eq. 4).

``L_iva = sum_k (1/N_i) sum_u A(u, k) KL(P_T || P_S)(v_k)``: the divergence at the output of each visual
token, weighted by how much the instruction looks at it in the teacher's layer ``l*``.
"""

from torch import Tensor

from align_ti.rows import WeightedRows


def iva_rows(attention: Tensor, visual_mask: Tensor) -> WeightedRows:
    """The visual positions of a batch with their importance.

    The weights of a sample are not renormalised: the softmax ran over the whole row, so they sum to at
    most 1. A text-only sample has no rows; one without instruction tokens has rows of weight 0.

    Args:
        attention: ``[B, S]``, the teacher's mean instruction attention at ``l*``.
        visual_mask: bool ``[B, S]``, True at visual tokens.
    """
    index = visual_mask.flatten().nonzero().flatten()
    return WeightedRows(index, attention.detach().flatten()[index])
