"""Transition Probability Alignment (the paper, Eq. 7).

``L_tpa = sum_k (1/d) sum_u KL(P_T || P_S)(y_{k+1} | y_k^(u), x, y_<k)``: the candidates' own outputs, with
``layout.weight``, plus the main path's outputs, with ``layout.main_weight``, for draws equal to the label.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from align_ti.attention.interface import AttentionCapture
from align_ti.attention.ribbon.geometry import RibbonGeometry
from align_ti.candidates.layout import CandidateLayout
from align_ti.candidates.prefix import candidate_pass
from align_ti.candidates.sampling import DEFAULT_TOP_P, METHODS
from align_ti.losses.batch import MicroBatch, Passes
from align_ti.losses.loss import Candidates, LossConfig, RowLoss, factor
from align_ti.numerics import exact_dtype
from align_ti.settings import Rule, is_number, one_of, setting, whole

MODELS = ("student", "teacher")


@dataclass(frozen=True, kw_only=True)
class TPAConfig(LossConfig):
    """Settings of transition probability alignment.

    Attributes:
        d: Candidates drawn at each step.
        sampling, top_p: How they are drawn, see ``align_ti.candidates.sampling``.
        draws_from: The model that they are drawn from.
    """

    section: ClassVar[str] = "tpa"
    weight: float = factor("the TPA loss (Eq. 7)")
    d: int = setting(
        4,
        "candidate tokens drawn at each step (the paper: 4)",
        whole(1, "a whole number of candidates, at least 1 per step"),
    )
    sampling: str = setting("nucleus", f"how they are drawn, one of {', '.join(METHODS)}", one_of(METHODS))
    top_p: float = setting(
        DEFAULT_TOP_P,
        "probability mass that nucleus sampling draws from",
        Rule(lambda value: is_number(value, above=0) and value <= 1, "a probability in (0, 1]"),
    )
    draws_from: str = setting("student", f"whose draws, one of {', '.join(MODELS)}", one_of(MODELS))


class TPA(RowLoss[TPAConfig]):
    """``1/L sum_k 1/d sum_u D(P_T, P_S)(. | x, y_<k, y_k^(u))``."""

    name = "tpa"
    title = "TPA (Eq. 7)"
    equation = r"\frac{1}{L} \sum_k \frac{1}{d} \sum_u D_{KL}(P_T \| P_S)(\cdot \mid x, y_{<k}, y_k^{(u)})"
    Config = TPAConfig

    @property
    def candidates(self) -> Candidates:
        """The tokens that stand in the labels' places."""
        return Candidates(self.config.d, self.config.sampling, self.config.top_p, self.config.draws_from)

    def weights(self, batch: MicroBatch, passes: Passes) -> Tensor:
        """What the layout says: of the main path for draws equal to the label, of the candidates for the others."""
        layout = passes.layout
        assert layout is not None
        return torch.cat([layout.main_weight.flatten(), layout.weight]).to(exact_dtype(passes.student_main))

    def places(self, batch: MicroBatch, passes: Passes) -> Tensor:
        """The same, on the CPU."""
        layout = passes.listed_layout
        assert layout is not None
        return torch.cat([layout.main_weight.flatten(), layout.weight]).nonzero().flatten()


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
    geometry: RibbonGeometry,
    backend: str = "auto",
) -> Transitions:
    """Run the candidates through both decoders on their kept prefixes.

    Args:
        student, teacher: The base models (``model.model``).
        student_prefix, teacher_prefix: Captures of their main passes over the batch; the teacher's is released
            after it is read, before the student's candidates need memory.
        layout: The candidates.
        geometry: Their samples and limits.
        backend: Backend of the ribbon attention.
    """
    with torch.no_grad():
        teacher_hidden = candidate_pass(teacher, teacher_prefix, layout, geometry, backend)
    teacher_prefix.release()
    student_hidden = candidate_pass(student, student_prefix, layout, geometry, backend)
    return Transitions(student_hidden, teacher_hidden)
