"""The losses on a CUDA device in bfloat16 against the CPU's in float32; run with ``-m gpu``."""

from dataclasses import replace

import pytest
import torch

from align_ti.losses.batch import Counts
from align_ti.losses.linear_heads import linear_divergence
from align_ti.studies.cost.methods import Bench
from align_ti.studies.cost.sizes import PRESETS

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def distance(found, expected) -> float:
    """Relative to the size of what is expected."""
    assert found.isfinite().all()
    return float((found.cpu().double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("chunk_rows", [16, 1000])
def test_losses_of_linear_heads(chunk_rows, compiled):
    """Rows of all three kinds; the head's gradient is summed in float32 over the chunks."""
    torch.manual_seed(0)
    rows, vocabulary = 50, 3000
    given = {"student": (rows, 64), "head": (vocabulary, 64), "teacher": (rows, 96), "teacher_head": (vocabulary, 96)}
    tensors = [torch.randn(shape).mul(0.3).bfloat16() for shape in given.values()]
    kinds = torch.arange(rows) % 3
    weights, ce_weights = (kinds != 1) / rows, (kinds != 0) / rows
    targets = torch.arange(rows)

    def loss_and_gradients(device, dtype, **options):
        student, head, teacher, teacher_head = (tensor.to(device, dtype) for tensor in tensors)
        leaves = student.requires_grad_(), head.requires_grad_()
        loss = linear_divergence(
            student, head, teacher, teacher_head, weights=weights.to(device), targets=targets.to(device),
            ce_weights=ce_weights.to(device), **options,
        ).loss  # fmt: skip
        return loss.detach(), torch.autograd.grad(loss, leaves)

    expected, expected_gradients = loss_and_gradients(CPU, torch.float32)
    found, gradients = loss_and_gradients(CUDA, torch.bfloat16, chunk_rows=chunk_rows, compiled=compiled)
    assert distance(found, expected) < 1e-3
    for ours, wanted in zip(gradients, expected_gradients, strict=True):
        assert ours.dtype == torch.bfloat16 and distance(ours, wanted) < 1e-2


@pytest.mark.parametrize("way", ["padded", "packed", "packed and compiled", "flex", "sdpa"])
def test_the_whole_objective(way):
    """All four losses and the student's gradients, through each kernel."""
    geometry = replace(PRESETS["miniature"], rows=1.5)
    slow = Bench(geometry, CPU)
    fast = Bench(
        replace(geometry, dtype=torch.bfloat16), CUDA, packing=way.startswith("packed"),
        compile_losses=way.endswith("compiled"), backend=way if way in ("flex", "sdpa") else "flash",
    )  # fmt: skip
    for mine, theirs in ((fast.student, slow.student), (fast.teacher, slow.teacher)):
        mine.load_state_dict({name: value.bfloat16() for name, value in theirs.state_dict().items()})
        theirs.load_state_dict({name: value.float() for name, value in mine.state_dict().items()})
    objective = fast.objectives["align_ti"]
    objective.batches = tuple(
        replace(
            batch,
            **{name: value.to(CUDA) for name, value in vars(batch).items() if isinstance(value, torch.Tensor)},
        )
        for batch in slow.batches
    )
    objective.batches = tuple(
        replace(batch, inputs_embeds=batch.inputs_embeds.bfloat16()) for batch in objective.batches
    )

    def terms_and_gradients(bench, device):
        tokens, samples = (torch.tensor(float(number), device=device) for number in (sum(geometry.responses), 8))
        out = bench.objectives["align_ti"](bench.student, {}, Counts(tokens, samples, samples))
        gradients = torch.autograd.grad(out["loss"], list(bench.student.parameters()))
        return {name: value.detach().float() for name, value in out.items()}, gradients

    expected, expected_gradients = terms_and_gradients(slow, CPU)
    found, gradients = terms_and_gradients(fast, CUDA)
    for name, value in expected.items():
        assert distance(found[name], value) < 0.02, name
    ours, wanted = (
        torch.cat([part.flatten().float().cpu() for part in parts]) for parts in (gradients, expected_gradients)
    )
    assert distance(ours, wanted) < 0.05
