"""From hidden states to named losses: every row that some loss weighs goes through both heads, once.

A loss that is a weighted sum of divergences or cross-entropies of rows is a line in ``row_weights``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from align_ti.attention.packing import Packing, samples_of
from align_ti.candidates.layout import CandidateLayout, SupervisedTokens
from align_ti.config import ObjectiveSettings
from align_ti.losses.iva import even_rows, iva_rows, uniform_rows
from align_ti.losses.linear_heads import LinearDivergence, linear_divergence
from align_ti.losses.policy_gradient import policy_gradient
from align_ti.losses.relational import RelationalLoss
from align_ti.numerics import exact_dtype
from llava.constants import IGNORE_INDEX
from llava.model.head import with_weight
from llava.model.splice import SplicedBatch

ROW_TERMS = ("sft", "kd", "iva", "tpa")
"""Losses that are weighted sums over rows."""


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
        on_policy: whether the student sampled the responses.
    """

    inputs: SplicedBatch
    supervised: SupervisedTokens
    counts: Counts
    packing: Packing | None = None
    on_policy: bool = False

    def visual_places(self) -> tuple[Tensor, Tensor]:
        """The visual tokens in reading order: their index into ``[B * S]`` and their sample, both long ``[R]``."""
        mask = self.inputs.visual_mask
        index = mask.flatten().nonzero().flatten()
        return index, samples_of(index, mask.shape[1], self.packing)


class LossTerms:
    """Named losses of a micro-batch.

    Args:
        teacher: frozen.
        settings: what takes part, and how.
    """

    def __init__(self, teacher: PreTrainedModel, settings: ObjectiveSettings) -> None:
        self.teacher = teacher
        self.settings = settings
        self.relational = RelationalLoss(settings.rel_similarity)

    def __call__(self, student: Any, batch: MicroBatch, passes: Passes) -> dict[str, Tensor]:
        """The weighted sum ``loss`` and the detached unweighted terms that are defined on these responses: ``sft`` on
        the data's alone, ``pg`` and ``reverse_kl`` on the student's; see ``Objective.__call__``."""
        out = {"loss": passes.student_main.new_zeros((), dtype=exact_dtype(passes.student_main))}
        weights = row_weights(self.settings, batch, passes)
        if weights:
            out |= self.weighted_rows(student, batch, passes, weights)
        if "rel" in self.settings.weights:
            self._add(out, "rel", self.relations(student, batch, passes))
        if "pg" in self.settings.weights and batch.on_policy:
            loss, out["reverse_kl"] = self.policy_gradient(student, batch, passes)
            self._add(out, "pg", loss)
        if passes.layout is not None:
            tokens = batch.counts.tokens
            ran = (passes.layout.weight > 0).sum() if self.settings.merge_draws else torch.tensor(len(passes.layout))
            out["candidate_rows"] = ran.to(tokens.device) / tokens
        return out

    def _add(self, out: dict[str, Tensor], name: str, value: Tensor) -> None:
        out["loss"] = out["loss"] + self.settings.weights[name] * value
        out[name] = value.detach()

    def weighted_rows(
        self, student: Any, batch: MicroBatch, passes: Passes, terms: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """``loss`` and terms that are weighted sums over rows, from one pass of those rows through both heads.

        Args:
            terms: from ``row_weights``.
        """
        weights = self.settings.weights
        some = next(iter(terms.values()))
        targets = torch.full_like(some, IGNORE_INDEX, dtype=torch.long)
        targets[batch.supervised.predicting] = batch.supervised.label
        nothing = torch.zeros_like(some)
        ce_weights = weights["sft"] * terms["sft"] if "sft" in terms else nothing
        divergence_weights = sum((weights[name] * terms[name] for name in terms if name != "sft"), start=nothing)
        used = ((ce_weights != 0) | (divergence_weights != 0)).nonzero().flatten()
        assert passes.teacher_main is not None
        options: dict[str, Any] = {
            "weights": divergence_weights[used],
            "targets": targets[used],
            "ce_weights": ce_weights[used],
            "divergence": self.settings.divergence,
            "temperature": self.settings.temperature,
            "compiled": self.settings.compile_losses,
        }
        result = LinearDivergence(
            *self.through_heads(
                student,
                _rows(passes.student_main, passes.student_candidates, used),
                _rows(passes.teacher_main, passes.teacher_candidates, used),
                lambda *sides: tuple(linear_divergence(*sides, **options)),
            )
        )
        out = {"loss": result.loss}
        for name, weight in terms.items():
            values = result.cross_entropy if name == "sft" else result.divergence
            out[name] = (weight[used] * values).sum()
        return out

    def relations(self, student: Any, batch: MicroBatch, passes: Passes) -> Tensor:
        """``rel``: the mean over the samples with an image of the global batch."""
        assert passes.teacher_main is not None
        index, sample = batch.visual_places()
        total = self.through_heads(
            student,
            passes.student_main[index],
            passes.teacher_main[index],
            partial(self.relational, sample=sample),
        )
        return total / batch.counts.image_samples

    def policy_gradient(self, student: Any, batch: MicroBatch, passes: Passes) -> tuple[Tensor, Tensor]:
        """``pg``, and the exact reverse KL a token in it, on the student's responses."""
        assert passes.teacher_main is not None
        supervised = batch.supervised
        sample = samples_of(supervised.predicting, batch.inputs.labels.shape[1], batch.packing)
        scale = 1 / batch.counts.tokens.to(exact_dtype(passes.student_main))
        options: dict[str, Any] = {
            "targets": supervised.label,
            "sample": sample,
            "scale": scale,
            "compiled": self.settings.compile_losses,
        }
        loss, reverse_kl = self.through_heads(
            student,
            passes.student_main[supervised.predicting],
            passes.teacher_main[supervised.predicting],
            lambda *sides: tuple(policy_gradient(*sides, **options)),
        )
        return loss, reverse_kl.detach()

    def through_heads(
        self, student: Any, student_rows: Tensor, teacher_rows: Tensor, function: Callable[..., Any]
    ) -> Any:
        """``function(student_rows, student_head, teacher_rows, teacher_head)``, run inside both heads: ZeRO-3 then has
        their weights whole."""

        def both(hidden: Tensor, weight: Tensor) -> Any:
            return with_weight(
                self.teacher.lm_head, teacher_rows, lambda taught, head: function(hidden, weight, taught, head)
            )

        return with_weight(student.lm_head, student_rows, both)


def row_weights(settings: ObjectiveSettings, batch: MicroBatch, passes: Passes) -> dict[str, Tensor]:
    """What each row counts in each term, the means taken: ``[B * S + C]`` by name."""
    counts, supervised = batch.counts, batch.supervised
    exact = exact_dtype(passes.student_main)
    places = len(passes.student_main)
    extra = 0 if passes.student_candidates is None else len(passes.student_candidates)
    names = [name for name in settings.weights if name in ROW_TERMS]
    if batch.on_policy and "sft" in names:  # the data's responses alone are right answers
        names.remove("sft")
    terms = {name: passes.student_main.new_zeros(places + extra, dtype=exact) for name in names}
    for name in ("sft", "kd"):
        if name in terms:
            terms[name][supervised.predicting] = 1 / counts.tokens.to(exact)
    if "iva" in terms:
        if settings.iva_weights == "uniform":
            rows, samples = uniform_rows(*batch.visual_places()), counts.image_samples
        else:
            assert passes.attention is not None
            rows, samples = iva_rows(passes.attention, batch.inputs.visual_mask), counts.iva_samples
            if settings.iva_weights == "teacher_mean":
                rows = even_rows(rows, batch.visual_places()[1])
        terms["iva"][rows.index] = rows.weight.to(exact) / samples.to(exact)
    if "tpa" in terms:
        assert passes.layout is not None
        both = torch.cat([passes.layout.main_weight.flatten(), passes.layout.weight])
        terms["tpa"] = both.to(exact) / counts.tokens.to(exact)
    return terms


def _rows(main: Tensor, candidates: Tensor | None, used: Tensor) -> Tensor:
    """Rows ``used`` of main path and candidates laid one after the other, ``[R, D]``."""
    if candidates is None:
        return main[used]
    on_main = used[used < len(main)]
    beside = used[used >= len(main)] - len(main)
    return torch.cat([main[on_main], candidates[beside]])
