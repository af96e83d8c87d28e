"""Transition Probability Alignment (the paper, Eq. 7).

``L_tpa = sum_k (1/d) sum_u KL(P_T || P_S)(y_{k+1} | y_k^(u), x, y_<k)``: the candidates' own outputs, with
``layout.weight``, plus the main path's outputs, with ``layout.main_weight``, for draws equal to the label.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from align_ti.attention.interface import AttentionCapture
from align_ti.candidates.layout import CandidateLayout
from align_ti.candidates.prefix import candidate_pass


class Transitions(NamedTuple):
    """Hidden states of the candidates, row for row: ``[C, D_s]``, and ``[C, D_t]`` without gradient."""

    student: Tensor
    teacher: Tensor


def transitions(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    student_prefix: AttentionCapture,
    teacher_prefix: AttentionCapture,
    layout: CandidateLayout,
    attention_mask: Tensor,
    backend: str = "auto",
    bounds: Tensor | None = None,
) -> Transitions:
    """Run the candidates through both decoders on their kept prefixes.

    Args:
        student, teacher: the base models (``model.model``).
        student_prefix, teacher_prefix: captures of their main passes over the batch; the teacher's is released once
            it has been read, before the student's candidates need memory.
        layout: the candidates.
        attention_mask: bool ``[B, S]`` of the main passes.
        backend: of the ribbon attention.
        bounds: of packed main passes, see ``ribbon_geometry``.
    """
    with torch.no_grad():
        teacher_hidden = candidate_pass(teacher, teacher_prefix, layout, attention_mask, backend, bounds)
    teacher_prefix.release()
    student_hidden = candidate_pass(student, student_prefix, layout, attention_mask, backend, bounds)
    return Transitions(student_hidden, teacher_hidden)
