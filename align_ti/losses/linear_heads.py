"""Divergence and cross-entropy between two linear heads, without ever holding all rows x vocabulary.

The logits of a few rows at a time are computed, turned into losses and gradients of those rows, and
freed; only the gradients of the hidden states ``[N, D]`` and of the head ``[V, D]`` are kept.
All losses that read the same student head can share one call, with a weight for each row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy

from align_ti.losses.divergences import Divergence, forward_kl, get_divergence
from align_ti.losses.forward_kl import forward_kl_terms
from align_ti.losses.heads import Head, head_of
from align_ti.numerics import default_chunk_rows, exact_dtype
from llava.constants import IGNORE_INDEX
from llava.errors import InputError
from llava.fusion import fuse


class Kind(Enum):
    """What a row needs."""

    DIVERGENCE = "divergence"
    BOTH = "divergence and cross-entropy"
    CE = "cross-entropy"


def by_kind(has_divergence: Tensor, has_ce: Tensor) -> list[tuple[Kind, Tensor]]:
    """The rows of each kind, bool ``[R]``, from those that have a divergence and those that have a cross-entropy."""
    return [
        (Kind.DIVERGENCE, has_divergence & ~has_ce),
        (Kind.BOTH, has_divergence & has_ce),
        (Kind.CE, has_ce & ~has_divergence),
    ]


Rows = slice | Tensor
"""Some rows: neighbours, or any, long ``[n]``."""


class LinearDivergence(NamedTuple):
    """``loss``: differentiable scalar. ``divergence``, ``cross_entropy``: ``[N]``, detached, per row, before
    weights; 0 in rows whose weight for that loss is 0 (they are not computed)."""

    loss: Tensor
    divergence: Tensor
    cross_entropy: Tensor


def linear_divergence(
    student_hidden: Tensor,
    student_weight: Tensor,
    teacher_hidden: Tensor | None = None,
    teacher_weight: Tensor | None = None,
    *,
    weights: Tensor | None = None,
    targets: Tensor | None = None,
    ce_weights: Tensor | None = None,
    divergence: str | Divergence = "forward_kl",
    temperature: float = 1.0,
    chunk_rows: int | None = None,
    compiled: bool = False,
    kinds: Sequence[tuple[Kind, int]] | None = None,
) -> LinearDivergence:
    """``sum_r weights_r D(P_T, P_S)_r + sum_r ce_weights_r CE_r`` from hidden states and head weights.

    The divergence runs over the vocabulary rows both heads have (the first ``min(V_s, V_t)``), each
    distribution normalised over them; the cross-entropy over the student's own full vocabulary at
    temperature 1. The result is a sum: put means into the weights. A row with zero weight in both costs
    nothing, and one with a single kind of weight pays only for that loss. Gradients reach
    ``student_hidden`` and ``student_weight``; the teacher gets none. Under ``no_grad`` no gradient is
    computed. Products run in the head's dtype (or autocast's), losses are taken in float32 (float64 stays
    float64), and the head's gradient is accumulated over the chunks in float32 or better. Gradients of
    float16 tensors are kept in float32 until the backward brings the loss scale.

    Args:
        student_hidden: ``[N, D_s]``, after the final norm.
        student_weight: ``[V_s, D_s]``, the student's head without bias.
        teacher_hidden: ``[N, D_t]``, row for row with the student's; ``None`` if only the cross-entropy is needed.
        teacher_weight: ``[V_t, D_t]``.
        weights: ``[N]`` weight of each row's divergence; ``None`` is zero everywhere.
        targets: ``[N]`` token ids; -100 where ``ce_weights`` is 0 is allowed.
        ce_weights: ``[N]`` weight of each row's cross-entropy; ``None`` is zero everywhere.
        divergence: A name for ``get_divergence`` or a function of two blocks of logits.
        temperature: Divides both models' logits for the divergence; the result is not multiplied by its
            square.
        chunk_rows: Rows of logits at once. Default: see ``align_ti.numerics``.
        compiled: Fuse the operations on logits with ``torch.compile``; needs a compiler, and seconds the first time.
        kinds: What the rows need, block by block from the first row on: the kind and the number of rows. Without it the
            weights are read, for which a GPU is waited for.

    Raises:
        InputError: Sizes that do not fit together, a weighted row without a target, or a weighted
            divergence without a teacher.
    """
    rows = student_hidden.shape[0]
    row_weights = _row_vector(weights, rows, student_hidden, "weights")
    row_ce_weights = _row_vector(ce_weights, rows, student_hidden, "ce_weights")
    _check(student_hidden, student_weight, teacher_hidden, teacher_weight, targets)
    if not temperature > 0:
        raise InputError(f"temperature must be above 0, got {temperature}")
    vocabulary = student_weight.shape[0]
    if chunk_rows is None:
        chunk_rows = default_chunk_rows(vocabulary, student_hidden.device)
    elif chunk_rows < 1:
        raise InputError(f"chunk_rows must be at least 1, got {chunk_rows}")
    # Rows are grouped by what they need, so that none pays for a softmax it does not use.
    chunks: list[tuple[Kind, Rows]] = []
    if kinds is None:
        has_divergence, has_ce = row_weights != 0, row_ce_weights != 0
        _check_weighted(has_divergence, has_ce, teacher_hidden, teacher_weight, targets)
        for kind, member in by_kind(has_divergence, has_ce):
            chunks += [(kind, chunk) for chunk in member.nonzero().flatten().split(chunk_rows) if len(chunk)]
    else:
        first = 0
        for kind, number in kinds:
            starts = range(first, first + number, chunk_rows)
            chunks += [(kind, slice(start, min(start + chunk_rows, first + number))) for start in starts]
            first += number
        if first != rows:
            raise InputError(f"kinds are given for {first} rows, expected {rows}")
    grad = torch.is_grad_enabled()
    function = get_divergence(divergence) if isinstance(divergence, str) else divergence
    teacher_head = None if teacher_weight is None else head_of(teacher_weight[:vocabulary])
    job = _Job(
        chunks=chunks,
        weights=row_weights,
        ce_weights=row_ce_weights,
        targets=targets,
        teacher_hidden=teacher_hidden,
        teacher_head=teacher_head,
        divergence=fuse(function) if compiled else function,
        closed_form=function is forward_kl
        and temperature == 1
        and teacher_head is not None
        and len(teacher_head) == vocabulary,
        compiled=compiled,
        temperature=temperature,
        hidden_grad=grad and student_hidden.requires_grad,
        weight_grad=grad and student_weight.requires_grad,
    )
    return LinearDivergence(*_ChunkedHeads.apply(student_hidden, student_weight, job))


@dataclass
class _Job:
    """What the chunks need besides the two differentiable tensors."""

    chunks: list[tuple[Kind, Rows]]
    weights: Tensor
    ce_weights: Tensor
    targets: Tensor | None
    teacher_hidden: Tensor | None
    teacher_head: Head | None  # the rows the student's head has too
    divergence: Divergence
    closed_form: bool  # the divergence is a forward KL over the student's whole vocabulary at temperature 1
    compiled: bool
    temperature: float
    hidden_grad: bool
    weight_grad: bool


class _ChunkedHeads(torch.autograd.Function):
    """Losses and their gradients, chunk by chunk, in the forward; the backward only scales them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, job: _Job) -> tuple[Tensor, Tensor, Tensor]:
        exact = job.weights.dtype
        loss = hidden.new_zeros((), dtype=exact)
        divergence, ce = torch.zeros_like(job.weights), torch.zeros_like(job.weights)
        kept = _kept_dtype(hidden)
        hidden_grad = torch.zeros_like(hidden, dtype=kept) if job.hidden_grad else None
        weight_grad = torch.zeros_like(weight, dtype=exact) if job.weight_grad else None
        head = head_of(weight)
        with torch.autocast(hidden.device.type, enabled=False):
            # One chunk of logits lives at a time: its loss and its gradients are added up here, in the forward.
            for kind, rows in job.chunks:
                block = head.rows(hidden[rows])
                chunk_loss, logits_grad = _chunk(head.logits(block), kind, rows, job, divergence, ce)
                loss += chunk_loss
                if logits_grad is not None:
                    rows_grad = head.backward(logits_grad, block, job.hidden_grad, weight_grad)
                    if hidden_grad is not None and rows_grad is not None:
                        hidden_grad[rows] = rows_grad.to(kept)
        if weight_grad is not None:
            weight_grad = weight_grad.to(_kept_dtype(weight))
        ctx.save_for_backward(hidden_grad, weight_grad)
        ctx.dtypes = hidden.dtype, weight.dtype
        ctx.mark_non_differentiable(divergence, ce)
        return loss, divergence, ce

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_grad: Tensor, *_: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        hidden_grad, weight_grad = (
            None if kept is None else _times(kept, loss_grad, dtype)
            for kept, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return hidden_grad, weight_grad, None


def _kept_dtype(tensor: Tensor) -> torch.dtype:
    """Type of a gradient kept until the backward, where the loss scale arrives: float16 would underflow before."""
    return torch.float32 if tensor.dtype == torch.float16 else tensor.dtype


def _times(kept: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """``kept * scale`` in ``dtype``. On a CPU a scale of 1 avoids a copy; on a GPU, reading it would wait for it."""
    if kept.dtype == dtype and not scale.is_cuda and scale.item() == 1.0:
        return kept
    return torch.mul(kept, scale, out=torch.empty_like(kept, dtype=dtype))


def _chunk(
    logits: Tensor, kind: Kind, rows: Rows, job: _Job, divergence: Tensor, ce: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Weighted loss of one chunk and, where one is wanted, its gradient by the logits; writes the rows' values into
    ``divergence`` and ``ce``."""
    grad = job.hidden_grad or job.weight_grad
    if grad and job.closed_form and kind is not Kind.CE:
        weights, ce_weights = job.weights[rows], job.ce_weights[rows]
        if kind is Kind.DIVERGENCE or job.targets is None:
            targets = torch.zeros_like(weights, dtype=torch.long)
        else:
            targets = job.targets[rows]
        terms = forward_kl_terms(logits, _teacher_logits(rows, job), targets, weights, ce_weights, job.compiled)
        divergence[rows] = terms.divergence
        if kind is Kind.BOTH:
            ce[rows] = terms.cross_entropy
        return (weights * terms.divergence + ce_weights * terms.cross_entropy).sum(), terms.logits_grad
    with torch.set_grad_enabled(grad):
        loss = _chunk_loss(logits.requires_grad_(grad), kind, rows, job, divergence, ce)
    return loss.detach(), torch.autograd.grad(loss, logits)[0] if grad else None


def _chunk_loss(logits: Tensor, kind: Kind, rows: Rows, job: _Job, divergence: Tensor, ce: Tensor) -> Tensor:
    """Weighted loss of one chunk; writes the rows' values into ``divergence`` and ``ce``."""
    loss = job.weights.new_zeros(())
    if kind is not Kind.DIVERGENCE:
        assert job.targets is not None
        values = cross_entropy(logits.to(job.weights.dtype), job.targets[rows], reduction="none")
        ce[rows] = values.detach()
        loss = loss + (job.ce_weights[rows] * values).sum()
    if kind is not Kind.CE:
        teacher_logits = _teacher_logits(rows, job)
        student_logits = logits[:, : teacher_logits.shape[1]]
        if job.temperature != 1.0:
            student_logits = student_logits / job.temperature
            teacher_logits = teacher_logits / job.temperature
        values = job.divergence(student_logits, teacher_logits).to(job.weights.dtype)
        divergence[rows] = values.detach()
        loss = loss + (job.weights[rows] * values).sum()
    return loss


def _teacher_logits(rows: Rows, job: _Job) -> Tensor:
    assert job.teacher_hidden is not None and job.teacher_head is not None
    return job.teacher_head.logits(job.teacher_head.rows(job.teacher_hidden[rows]))


def _row_vector(values: Tensor | None, rows: int, hidden: Tensor, name: str) -> Tensor:
    exact = exact_dtype(hidden)
    if values is None:
        return hidden.new_zeros(rows, dtype=exact)
    if values.shape != (rows,):
        raise InputError(f"{name} has shape {tuple(values.shape)}, expected ({rows},), one number per row")
    return values.detach().to(hidden.device, exact)


def _check(
    student_hidden: Tensor,
    student_weight: Tensor,
    teacher_hidden: Tensor | None,
    teacher_weight: Tensor | None,
    targets: Tensor | None,
) -> None:
    """Check sizes."""
    for name, hidden, weight in (
        ("student", student_hidden, student_weight),
        ("teacher", teacher_hidden, teacher_weight),
    ):
        if hidden is None or weight is None:
            continue
        if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
            shapes = f"{tuple(hidden.shape)} and {tuple(weight.shape)}"
            raise InputError(f"{name} hidden states and head are {shapes}; expected [N, D] and [V, D]")
    if teacher_hidden is not None and len(teacher_hidden) != len(student_hidden):
        raise InputError(f"{len(student_hidden)} student rows but {len(teacher_hidden)} teacher rows")
    if targets is not None and targets.shape != (len(student_hidden),):
        raise InputError(f"targets has shape {tuple(targets.shape)}, expected ({len(student_hidden)},)")


def _check_weighted(
    has_divergence: Tensor,
    has_ce: Tensor,
    teacher_hidden: Tensor | None,
    teacher_weight: Tensor | None,
    targets: Tensor | None,
) -> None:
    """Check that targets and a teacher are given where they are needed."""
    if (teacher_hidden is None or teacher_weight is None) and has_divergence.any():
        raise InputError("rows have a divergence weight but no teacher hidden states and head were given")
    if has_ce.any() and (targets is None or (targets[has_ce] == IGNORE_INDEX).any()):
        raise InputError("a row with a cross-entropy weight has no target (none given, or -100)")
