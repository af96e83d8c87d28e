"""From hidden states to named losses: every row that some loss weighs goes through both heads, once.

A loss that is a weighted sum of divergences or cross-entropies of rows is a line in ``row_weights``.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from align_ti.divergence import LinearDivergence, linear_divergence
from align_ti.iva import iva_rows, uniform_rows
from align_ti.packing import Packing, samples_of
from align_ti.ribbon.layout import CandidateLayout, SupervisedTokens
from align_ti.settings import ObjectiveSettings
from llava.constants import IGNORE_INDEX
from llava.model.head import with_weight
from llava.model.splice import SplicedBatch


@dataclass
class Passes:
    """Hidden states of one step: ``main`` ``[B * S, D]`` and ``candidates`` ``[C, D]`` of both models; ``attention``
    ``[B, S]`` is the map that weighs IVA."""

    student_main: Tensor
    teacher_main: Tensor | None
    student_candidates: Tensor | None = None
    teacher_candidates: Tensor | None = None
    layout: CandidateLayout | None = None
    attention: Tensor | None = None


class Counts(NamedTuple):
    """Denominators over the global batch: supervised tokens, samples with image and instruction, with an image."""

    tokens: Tensor
    iva_samples: Tensor
    image_samples: Tensor


@dataclass(frozen=True)
class MicroBatch:
    """What the losses read besides hidden states.

    Attributes:
        inputs: the student's, packed or padded.
        supervised: the tokens to predict.
        counts: the denominators.
        packing: of a packed row.
    """

    inputs: SplicedBatch
    supervised: SupervisedTokens
    counts: Counts
    packing: Packing | None = None

    def visual_samples(self) -> Tensor:
        """The sample of each visual token, in reading order: long ``[R]``."""
        mask = self.inputs.visual_mask
        return samples_of(mask.flatten().nonzero().flatten(), mask.shape[1], self.packing)


def all_terms(
    student: Any, teacher: PreTrainedModel, settings: ObjectiveSettings, batch: MicroBatch, passes: Passes
) -> dict[str, Tensor]:
    """The loss of a micro-batch and its named terms; see ``Objective.__call__``."""
    weights = settings.weights
    terms = row_weights(settings, batch, passes)
    some = next(iter(terms.values()))
    targets = torch.full_like(some, IGNORE_INDEX, dtype=torch.long)
    targets[batch.supervised.predicting] = batch.supervised.label
    nothing = torch.zeros_like(some)
    ce_weights = weights["sft"] * terms["sft"] if "sft" in terms else nothing
    divergence_weights = sum((weights[name] * terms[name] for name in terms if name != "sft"), start=nothing)
    used = ((ce_weights != 0) | (divergence_weights != 0)).nonzero().flatten()
    result = divergences(
        student,
        teacher,
        settings,
        _rows(passes.student_main, passes.student_candidates, used),
        None if passes.teacher_main is None else _rows(passes.teacher_main, passes.teacher_candidates, used),
        weights=divergence_weights[used],
        targets=targets[used],
        ce_weights=ce_weights[used],
    )
    out = {"loss": result.loss}
    for name, weight in terms.items():
        values = result.cross_entropy if name == "sft" else result.divergence
        out[name] = (weight[used] * values).sum()
    if passes.layout is not None:
        tokens = batch.counts.tokens
        ran = (passes.layout.weight > 0).sum() if settings.merge_draws else torch.tensor(len(passes.layout))
        out["candidate_rows"] = ran.to(tokens.device) / tokens
    return out


def row_weights(settings: ObjectiveSettings, batch: MicroBatch, passes: Passes) -> dict[str, Tensor]:
    """What each row counts in each term, the means taken: ``[B * S + C]`` by name."""
    counts, supervised = batch.counts, batch.supervised
    exact = torch.float64 if passes.student_main.dtype == torch.float64 else torch.float32
    places = len(passes.student_main)
    extra = 0 if passes.student_candidates is None else len(passes.student_candidates)
    terms = {name: passes.student_main.new_zeros(places + extra, dtype=exact) for name in settings.weights}
    for name in ("sft", "kd"):
        if name in terms:
            terms[name][supervised.predicting] = 1 / counts.tokens.to(exact)
    if "iva" in terms:
        if settings.iva_weights == "uniform":
            rows, samples = uniform_rows(batch.inputs.visual_mask, batch.visual_samples()), counts.image_samples
        else:
            assert passes.attention is not None
            rows, samples = iva_rows(passes.attention, batch.inputs.visual_mask), counts.iva_samples
        terms["iva"][rows.index] = rows.weight.to(exact) / samples.to(exact)
    if "tpa" in terms:
        assert passes.layout is not None
        both = torch.cat([passes.layout.main_weight.flatten(), passes.layout.weight])
        terms["tpa"] = both.to(exact) / counts.tokens.to(exact)
    return terms


def divergences(
    student: Any,
    teacher: PreTrainedModel,
    settings: ObjectiveSettings,
    student_rows: Tensor,
    teacher_rows: Tensor | None,
    **weights: Tensor,
) -> LinearDivergence:
    """``linear_divergence`` of the rows, run inside both heads so that ZeRO-3 has their weights whole."""

    def both(hidden: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        options: dict[str, Any] = {"divergence": settings.divergence, "temperature": settings.temperature, **weights}
        if teacher_rows is None:
            return tuple(linear_divergence(hidden, weight, **options))
        return with_weight(
            teacher.lm_head,
            teacher_rows,
            lambda taught, head: tuple(linear_divergence(hidden, weight, taught, head, **options)),
        )

    return LinearDivergence(*with_weight(student.lm_head, student_rows, both))


def _rows(main: Tensor, candidates: Tensor | None, used: Tensor) -> Tensor:
    """Rows ``used`` of main path and candidates laid one after the other, ``[R, D]``."""
    if candidates is None:
        return main[used]
    on_main = used[used < len(main)]
    beside = used[used >= len(main)] - len(main)
    return torch.cat([main[on_main], candidates[beside]])
