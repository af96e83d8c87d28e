"""float16: gradients keep to float32's over a real vocabulary, with the weights and loss scales of real runs."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from align_ti.losses.linear_heads import linear_divergence
from align_ti.losses.policy_gradient import policy_gradient
from align_ti.losses.relational import RelationalConfig, RelationalLoss
from llava.model.loss import next_token_loss

VOCABULARY, WIDTH, ROWS = 152_064, 32, 24
TOKEN = 1 / 20_000
"""A supervised token's weight in a global batch of 20,000."""
VISUAL = 1e-3 / 128
"""A visual token's: attention of 1e-3, 128 samples."""


class Heads(NamedTuple):
    """Hidden states ``[ROWS, D]`` and heads ``[V, D]``, all of them float16 numbers held in float32."""

    hidden: Tensor
    head: Tensor
    taught: Tensor
    teacher_head: Tensor


def heads(spread: float = 3.0, size: float = 1.0) -> Heads:
    """Models that half agree: logits of standard deviation ``spread`` from hidden states of that ``size``."""
    torch.manual_seed(0)
    hidden, other = size * torch.randn(2, ROWS, WIDTH)
    head, other_head = spread / (size * WIDTH**0.5) * torch.randn(2, VOCABULARY, WIDTH)
    tensors = hidden, head, (hidden + other) / 2**0.5, (head + other_head) / 2**0.5
    return Heads(*(tensor.half().float() for tensor in tensors))


KINDS = {"tokens": (TOKEN, TOKEN), "visual": (VISUAL, 0.0)}


def row_weights(kind: str) -> tuple[Tensor, Tensor]:
    """Of divergence and cross-entropy, ``[ROWS]`` each; ``mixed`` has token rows and visual ones."""
    if kind != "mixed":
        return tuple(torch.full((ROWS,), weight) for weight in KINDS[kind])
    both = zip(row_weights("tokens"), row_weights("visual"), strict=True)
    return tuple(torch.cat([tokens[::2], visual[::2]]) for tokens, visual in both)


def gradients(
    given: Heads, mode: str, scale: float, loss, differentiable=("hidden", "head"), device="cpu"
) -> list[Tensor]:
    """Gradients of ``scale * loss(*given)`` over ``scale``, as float32, and the dtype they must come in.

    Args:
        given: the tensors.
        mode: ``float32``, ``autocast`` (float32 tensors, float16 products) or ``float16`` (all tensors; DeepSpeed).
        scale: the loss scale.
        loss: from the four tensors to a scalar.
        differentiable: names of the student's tensors that take a gradient.
        device: where it runs.
    """
    dtype = torch.float16 if mode == "float16" else torch.float32
    tensors = given._asdict()
    leaves = {name: tensors[name].to(device, dtype, copy=True).requires_grad_() for name in differentiable}
    frozen = {name: tensor.to(device, dtype) for name, tensor in tensors.items()}
    with torch.autocast(device, torch.float16, enabled=mode == "autocast"):
        value = loss(*{**frozen, **leaves}.values())
    assert value.dtype == torch.float32
    found = torch.autograd.grad(scale * value, list(leaves.values()))
    assert all(gradient.dtype == dtype for gradient in found)
    return [gradient.float().cpu() / scale for gradient in found]


MODES = [("autocast", 1.0), ("autocast", 65_536.0), ("float16", 65_536.0)]


def assert_near(found: list[Tensor], wanted: list[Tensor], tolerance: float = 2e-3) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        assert theirs.norm() > 0 and (ours - theirs).norm() < tolerance * theirs.norm()


@pytest.mark.parametrize("mode, scale", MODES)
@pytest.mark.parametrize("kind", ["tokens", "visual", "mixed"])
@pytest.mark.parametrize("spread, size", [(1.0, 1.0), (3.0, 1.0), (3.0, 300.0)], ids=["flat", "peaked", "large"])
def test_forward_kl_and_cross_entropy(spread, size, kind, mode, scale):
    weights, ce_weights = row_weights(kind)
    targets = torch.arange(ROWS)

    def loss(*tensors):
        return linear_divergence(*tensors, weights=weights, targets=targets, ce_weights=ce_weights).loss

    given = heads(spread, size)
    assert_near(gradients(given, mode, scale, loss), gradients(given, "float32", 1.0, loss))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode, scale", MODES)
@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl"])
def test_the_products_of_a_gpu(divergence, mode, scale):
    """There float16 products give float32 themselves."""
    weights, ce_weights = (weight.cuda() for weight in row_weights("mixed"))
    targets = torch.arange(ROWS, device="cuda")

    def loss(*tensors):
        return linear_divergence(
            *tensors, weights=weights, targets=targets, ce_weights=ce_weights, divergence=divergence
        ).loss

    found = gradients(heads(size=300.0), mode, scale, loss, device="cuda")
    assert_near(found, gradients(heads(size=300.0), "float32", 1.0, loss, device="cuda"))


@pytest.mark.parametrize("mode, scale", MODES)
@pytest.mark.parametrize("divergence, temperature", [("reverse_kl", 1.0), ("jsd:0.3", 0.7), ("skew_kl", 2.0)])
def test_other_divergences(divergence, temperature, mode, scale):
    weights, ce_weights = row_weights("mixed")
    options = {"divergence": divergence, "temperature": temperature, "targets": torch.arange(ROWS)}

    def loss(*tensors):
        return linear_divergence(*tensors, weights=weights, ce_weights=ce_weights, **options).loss

    assert_near(gradients(heads(), mode, scale, loss), gradients(heads(), "float32", 1.0, loss))


@pytest.mark.parametrize("mode, scale", MODES)
@pytest.mark.parametrize("differentiable", ["hidden", "head"])
def test_one_gradient_alone(differentiable, mode, scale):
    """A frozen head, or hidden states without a gradient."""
    weights, _ = row_weights("visual")

    def loss(*tensors):
        return linear_divergence(*tensors, weights=weights).loss

    found, wanted = (
        gradients(heads(), *chosen, loss, (differentiable,)) for chosen in ((mode, scale), ("float32", 1.0))
    )
    assert_near(found, wanted)


@pytest.mark.parametrize("mode, scale", MODES)
def test_a_student_that_has_nearly_learnt(mode, scale):
    """Logits a hundredth apart: the gradient is a difference of probabilities, each small itself."""
    given = heads(spread=1.0)
    given = given._replace(taught=given.hidden, teacher_head=(given.head * 1.01).half().float())
    weights, _ = row_weights("mixed")

    def loss(*tensors):
        return linear_divergence(*tensors, weights=weights).loss

    assert_near(gradients(given, mode, scale, loss), gradients(given, "float32", 1.0, loss), tolerance=0.02)


@pytest.mark.parametrize("mode, scale", MODES)
def test_policy_gradient(mode, scale):
    sample = torch.arange(ROWS) // 8

    def loss(*tensors):
        return policy_gradient(
            *tensors, targets=torch.arange(ROWS), sample=sample, scale=torch.tensor(TOKEN), length_normalised=True
        ).loss

    assert_near(gradients(heads(), mode, scale, loss), gradients(heads(), "float32", 1.0, loss))


@pytest.mark.parametrize("mode, scale", MODES)
@pytest.mark.parametrize("similarity", ["cosine", "product"])
def test_relations(similarity, mode, scale):
    sample = torch.arange(ROWS) // 8

    def loss(*tensors):
        return RelationalLoss(RelationalConfig(similarity=similarity)).over_samples(*tensors, sample) / 128

    assert_near(gradients(heads(), mode, scale, loss), gradients(heads(), "float32", 1.0, loss))


@pytest.mark.parametrize("mode, scale", [chosen for chosen in MODES if chosen[1] > 1])
def test_supervised_loss(mode, scale):
    """Plain autograd, which needs the loss scale that float16 training has."""
    labels = torch.arange(ROWS + 1)[None]

    def loss(hidden, head, *_):
        rows = pad(hidden, (0, 0, 0, 1))[None]
        return next_token_loss(rows, labels, lambda some: linear(some, head), num_items=20_000)[0]

    assert_near(gradients(heads(), mode, scale, loss), gradients(heads(), "float32", 1.0, loss))


def test_an_overflow_is_seen():
    """A loss scale that is too large gives infinities, which loss scalers look for, never wrong numbers."""
    weights, _ = row_weights("tokens")
    given = Heads(*(tensor.half() for tensor in heads()))
    head = given.head.clone().requires_grad_()
    value = linear_divergence(*given._replace(head=head), weights=weights).loss
    (found,) = torch.autograd.grad(2.0**60 * value, head)
    assert found.isinf().any() and not found.isnan().any()
    with torch.no_grad():
        given.hidden[3] = torch.nan
    value = linear_divergence(*given._replace(head=head), weights=weights).loss
    (found,) = torch.autograd.grad(value, head)
    assert value.isnan() and found.isnan().any()
