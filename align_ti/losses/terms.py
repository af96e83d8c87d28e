"""From hidden states to named losses: every row that some loss weighs goes through both heads, once."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor

from align_ti.losses.batch import MicroBatch, Passes
from align_ti.losses.divergences import Divergence
from align_ti.losses.linear_heads import LinearDivergence, linear_divergence
from align_ti.losses.loss import Compares, HeadLoss, Loss, RowLoss
from align_ti.losses.rows import no_rows
from align_ti.numerics import exact_dtype
from llava.constants import IGNORE_INDEX
from llava.model.head import with_weight
from llava.model.protocol import VisionLanguageModel


class LossTerms:
    """Named losses of a micro-batch.

    Args:
        teacher: Frozen.
        losses: The losses to compute, by name.
        divergence: Name of the divergence between teacher and student, see ``get_divergence``.
        temperature: Of both models' distributions in it.
        compiled: Let ``torch.compile`` fuse what is done to logits.
    """

    def __init__(
        self,
        teacher: VisionLanguageModel,
        losses: Mapping[str, Loss],
        divergence: str = "forward_kl",
        temperature: float = 1.0,
        compiled: bool = False,
    ) -> None:
        self.teacher = teacher
        self.losses = losses
        self.divergence = divergence
        self.temperature = temperature
        self.compiled = compiled

    def __call__(self, student: VisionLanguageModel, batch: MicroBatch, passes: Passes) -> dict[str, Tensor]:
        """The weighted sum ``loss``, and the detached unweighted terms of the losses that are defined in this step."""
        defined = [loss for loss in self.losses.values() if loss.defined(batch.on_policy)]
        parts: list[Tensor] = []
        terms: dict[str, Tensor] = {}
        for divergence, losses in self.by_divergence([loss for loss in defined if isinstance(loss, RowLoss)]):
            part, named = self.weighted_rows(student, batch, passes, losses, divergence)
            parts.append(part)
            terms |= named
        for loss in defined:
            if isinstance(loss, HeadLoss):
                values = self.of_heads(student, batch, passes, loss)
                parts.append(loss.config.weight * values[0])
                terms |= zip((loss.name, *loss.also_logged), [value.detach() for value in values], strict=True)
        nothing = passes.student_main.new_zeros((), dtype=exact_dtype(passes.student_main))
        return {"loss": _sum(parts, nothing), **terms}

    def by_divergence(self, losses: Sequence[RowLoss]) -> list[tuple[str | Divergence, list[RowLoss]]]:
        """The passes through both heads: one shared by cross-entropy and the objective's divergence, and one for each
        loss that defines its own function."""
        shared = [loss for loss in losses if isinstance(loss.compares, Compares)]
        passes: list[tuple[str | Divergence, list[RowLoss]]] = [(self.divergence, shared)] if shared else []
        for loss in losses:
            if not isinstance(loss.compares, Compares):
                passes.append((loss.compares, [loss]))
        return passes

    def weighted_rows(
        self,
        student: VisionLanguageModel,
        batch: MicroBatch,
        passes: Passes,
        losses: Sequence[RowLoss],
        divergence: str | Divergence,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of losses and each of them, from one chunked pass of their rows through both heads."""
        # Each loss as weights of rows, divided by its denominator: [B * S + C].
        shares = {}
        for loss in losses:
            weights = loss.weights(batch, passes)
            shares[loss.name] = weights / batch.counts.of(loss.denominator).to(weights.dtype)
        nothing = no_rows(passes)
        ce_weights, divergence_weights = (
            _sum([loss.config.weight * shares[loss.name] for loss in losses if _on_labels(loss) is ce], nothing)
            for ce in (True, False)
        )
        # Only rows that some loss uses go through the heads.
        targets = torch.full_like(nothing, IGNORE_INDEX, dtype=torch.long)
        targets[batch.supervised.predicting] = batch.supervised.label
        used = ((ce_weights != 0) | (divergence_weights != 0)).nonzero().flatten()
        options: dict[str, Any] = {
            "weights": divergence_weights[used],
            "targets": targets[used],
            "ce_weights": ce_weights[used],
            "divergence": divergence,
            "temperature": self.temperature,
            "compiled": self.compiled,
        }
        result = LinearDivergence(
            *self.through_heads(
                student, *passes.gathered(used), lambda *sides: tuple(linear_divergence(*sides, **options))
            )
        )
        terms = {}
        for loss in losses:
            values = result.cross_entropy if _on_labels(loss) else result.divergence
            terms[loss.name] = (shares[loss.name][used] * values).sum()
        return result.loss, terms

    def of_heads(
        self, student: VisionLanguageModel, batch: MicroBatch, passes: Passes, loss: HeadLoss
    ) -> tuple[Tensor, ...]:
        """A function of both models' rows and heads: its loss and what it logs beside it."""
        assert passes.teacher_main is not None
        rows = loss.rows(batch)
        compute = partial(loss.compute, batch=batch, count=batch.counts.of(loss.denominator), compiled=self.compiled)
        return self.through_heads(student, passes.student_main[rows], passes.teacher_main[rows], compute)

    def through_heads(
        self,
        student: VisionLanguageModel,
        student_rows: Tensor,
        teacher_rows: Tensor,
        function: Callable[..., tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...]:
        """``function(student_rows, student_head, teacher_rows, teacher_head)``, run inside both heads: ZeRO-3 then has
        their weights whole."""

        def both(hidden: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
            return with_weight(
                self.teacher.lm_head, teacher_rows, lambda taught, head: function(hidden, weight, taught, head)
            )

        return with_weight(student.lm_head, student_rows, both)


def _on_labels(loss: RowLoss) -> bool:
    """Whether a loss is a cross-entropy."""
    return loss.compares is Compares.CROSS_ENTROPY


def _sum(parts: Sequence[Tensor], nothing: Tensor) -> Tensor:
    return reduce(torch.add, parts) if parts else nothing
