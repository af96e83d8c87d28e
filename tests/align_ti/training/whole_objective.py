"""A whole objective on a tiny batch that needs no tower: losses, their terms and all gradients."""

from dataclasses import replace

import torch
from torch import Tensor

from align_ti.config import ObjectiveConfig
from align_ti.losses.batch import Counts
from align_ti.objective import Objective
from llava.model.splice import SplicedBatch

HIDDEN, TEACHER_HIDDEN = 24, 32


def spliced(batch, model, visual) -> SplicedBatch:
    """The batch as the splice would hand it to a model."""
    return SplicedBatch(
        batch.embed(model, visual), batch.attention_mask, batch.position_ids, batch.labels,
        batch.instruction_mask & batch.attention_mask, batch.visual_mask,
        right_padded=bool(batch.attention_mask[:, 0].all()),
    )  # fmt: skip


def visual_of(batch, width, seed):
    """Made-up visual tokens in reading order."""
    torch.manual_seed(seed)
    return torch.randn(int(batch.visual_mask.sum()), width, dtype=torch.float64)


def settings(losses, **flags) -> ObjectiveConfig:
    """Greedy draws, so that no noise is involved."""
    defaults = {"iva_layer": 1, "tpa_d": 3, "tpa_sampling": "greedy"}
    return ObjectiveConfig.of_flags(losses, {**defaults, **flags}).replace(end_of_turn_ids={2})


def total(student, teacher, batch, config, counts=(11.0, 3.0, 3.0), rows=None, on_policy=False, step=0):
    """Detached terms, and gradients of the visual tokens and all parameters.

    Args:
        counts: tokens, samples with image and instruction, samples with image.
        rows: only these samples of the batch.
        on_policy: whether the responses count as the student's own.
        step: number of the optimizer step.
    """
    objective = Objective(teacher, config)
    visual = visual_of(batch, HIDDEN, 0).requires_grad_()
    kept = slice(None) if rows is None else rows

    def some(inputs):
        tensors = {name: value[kept] for name, value in vars(inputs).items() if isinstance(value, Tensor)}
        return replace(inputs, **tensors)

    with torch.no_grad():
        taught = some(spliced(batch, teacher, visual_of(batch, TEACHER_HIDDEN, 1)))
    learnt = some(spliced(batch, student, visual))
    objective.splice = lambda *_: (learnt, taught)
    samples = {"on_policy": on_policy, "sample_index": torch.arange(len(batch.ids))[kept]}
    out = objective(student, samples, Counts(*map(torch.tensor, counts)), step)
    leaves = [visual, *(p for name, p in student.named_parameters() if not name.startswith("model.mm_"))]
    gradients = torch.autograd.grad(out["loss"], leaves, allow_unused=True)
    filled = [torch.zeros_like(p) if g is None else g for p, g in zip(leaves, gradients, strict=True)]
    return {name: value.detach() for name, value in out.items()}, filled


def assert_same(found, expected, tolerance=1e-11):
    """Two results of ``total`` agree."""
    (terms, gradients), (wanted, wanted_gradients) = found, expected
    assert terms.keys() == wanted.keys()
    for name, value in wanted.items():
        assert abs(terms[name] - value) < tolerance, name
    for ours, theirs in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=1e-9)


def add(parts):
    """The sum of several results of ``total``: one for each micro-batch of a step."""
    terms = {name: sum(part[0][name] for part in parts) for name in parts[0][0]}
    return terms, [sum(gradients) for gradients in zip(*(part[1] for part in parts), strict=True)]
