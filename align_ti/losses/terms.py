"""From hidden states to named losses: every row that some loss weighs goes through both heads, once."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor

from align_ti.losses.batch import MicroBatch, Passes
from align_ti.losses.divergences import Divergence
from align_ti.losses.linear_heads import Kind, LinearDivergence, by_kind, linear_divergence
from align_ti.losses.loss import Compares, HeadLoss, Loss, RowLoss
from align_ti.numerics import exact_dtype
from align_ti.transfer import send
from llava.constants import IGNORE_INDEX
from llava.model.head import with_weight
from llava.model.protocol import VisionLanguageModel


class LossTerms:
    """Named losses of a micro-batch.

    Args:
        teacher: The frozen teacher.
        losses: The losses to compute, by name.
        divergence: Name of the divergence between teacher and student, see ``get_divergence``.
        temperature: Temperature of both models' distributions in the divergence.
        compiled: Fuse the operations on logits with ``torch.compile``.
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
        plan = _RowPlan(batch, passes, losses)
        options: dict[str, Any] = {
            "weights": plan.summed(ce=False),
            "targets": plan.targets(),
            "ce_weights": plan.summed(ce=True),
            "divergence": divergence,
            "temperature": self.temperature,
            "compiled": self.compiled,
            "kinds": plan.kinds,
        }
        result = LinearDivergence(
            *self.through_heads(
                student, *passes.gathered(plan.index), lambda *sides: tuple(linear_divergence(*sides, **options))
            )
        )
        terms = {}
        for loss in losses:
            values = result.cross_entropy if _on_labels(loss) else result.divergence
            terms[loss.name] = (plan.shares[loss.name] * values).sum()
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


class _RowPlan:
    """The rows that some loss weighs, grouped by what they need. Which they are is known on the CPU or by their number:
    a GPU is not waited for.

    Attributes:
        index: Long ``[R]`` into ``[B * S + C]``. Rows of losses that name their own may come twice.
        kinds: What they need, block by block.
        shares: By loss, weights ``[R]`` over the loss's denominator.
    """

    def __init__(self, batch: MicroBatch, passes: Passes, losses: Sequence[RowLoss]) -> None:
        self.batch, self.losses, self.rows = batch, losses, passes.rows
        device = passes.student_main.device
        weights = {loss.name: loss.weights(batch, passes) for loss in losses}
        own = {name: found for name, found in weights.items() if not isinstance(found, Tensor)}
        wanted = {ce: torch.zeros(passes.rows, dtype=torch.bool) for ce in (True, False)}
        for loss in losses:
            if loss.name not in own:
                wanted[_on_labels(loss)][loss.places(batch, passes)] = True
        blocks = [
            (kind, send(member.nonzero().flatten(), device)) for kind, member in by_kind(wanted[False], wanted[True])
        ]
        shared = torch.cat([block for _, block in blocks])
        blocks += [
            (Kind.CE if _on_labels(loss) else Kind.DIVERGENCE, own[loss.name].index)
            for loss in losses
            if loss.name in own
        ]
        self.index = torch.cat([block for _, block in blocks])
        self.kinds = [(kind, len(block)) for kind, block in blocks]
        self.shares = {}
        exact = exact_dtype(passes.student_main)
        for loss in losses:
            found = weights[loss.name]
            parts = [found[shared] if isinstance(found, Tensor) else shared.new_zeros(len(shared))]
            for name, rows in own.items():  # a row that a loss names is that loss's alone
                parts.append(rows.weight if name == loss.name else torch.zeros_like(rows.weight))
            total = torch.cat([part.to(exact) for part in parts])
            self.shares[loss.name] = total / batch.counts.of(loss.denominator).to(exact)

    def summed(self, ce: bool) -> Tensor | None:
        """The weights of the cross-entropy or of the divergence, ``[R]``; None if no loss has it."""
        parts = [loss.config.weight * self.shares[loss.name] for loss in self.losses if _on_labels(loss) is ce]
        return reduce(torch.add, parts) if parts else None

    def targets(self) -> Tensor:
        """The label that each row predicts, long ``[R]``; -100 without one."""
        supervised = self.batch.supervised
        targets = torch.full((self.rows,), IGNORE_INDEX, device=self.index.device)
        targets[supervised.predicting] = supervised.label
        return targets[self.index]


def _on_labels(loss: RowLoss) -> bool:
    """Whether a loss is a cross-entropy."""
    return loss.compares is Compares.CROSS_ENTROPY


def _sum(parts: Sequence[Tensor], nothing: Tensor) -> Tensor:
    return reduce(torch.add, parts) if parts else nothing
