"""Divergences against their definitions and the identities they must obey."""

import math

import pytest
import torch

from align_ti.losses.divergences import forward_kl, get_divergence, jsd, reverse_kl, skew_kl
from llava.errors import InputError


@pytest.fixture
def logits():
    torch.manual_seed(0)
    return 3 * torch.randn(50, 17, dtype=torch.float64), 3 * torch.randn(50, 17, dtype=torch.float64)


def kl(p, q):
    return (p * (p / q).log()).sum(-1)


def test_against_definitions(logits):
    student, teacher = logits
    p, q = teacher.softmax(-1), student.softmax(-1)
    torch.testing.assert_close(forward_kl(*logits), kl(p, q), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(reverse_kl(*logits), kl(q, p), rtol=1e-10, atol=1e-12)
    for beta in (0.1, 0.5, 0.8):
        m = beta * p + (1 - beta) * q
        torch.testing.assert_close(
            jsd(*logits, beta=beta), beta * kl(p, m) + (1 - beta) * kl(q, m), rtol=1e-10, atol=1e-12
        )
        torch.testing.assert_close(skew_kl(*logits, alpha=beta), kl(p, m), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd", "jsd:0.2", "skew_kl", "skew_kl:0.6"])
def test_zero_for_equal_distributions_and_positive_otherwise(name, logits):
    student, teacher = logits
    divergence = get_divergence(name)
    shifted = teacher + torch.randn(50, 1, dtype=torch.float64)  # the same distributions, other logits
    assert divergence(shifted, teacher).abs().max() < 1e-14
    assert divergence(student, teacher).min() > 0


def test_bounds_and_limits(logits):
    student, teacher = 40 * logits[0], 40 * logits[1]  # nearly disjoint
    assert jsd(student, teacher).max() <= math.log(2) + 1e-12
    assert jsd(student, teacher).max() > 0.99 * math.log(2)
    assert skew_kl(student, teacher, alpha=0.1).max() <= -math.log(0.1) + 1e-12
    torch.testing.assert_close(jsd(student, teacher), jsd(teacher, student))  # symmetric at one half
    student, teacher = logits
    torch.testing.assert_close(skew_kl(student, teacher, alpha=1e-9), forward_kl(student, teacher), rtol=1e-5, atol=0)
    torch.testing.assert_close(jsd(student, teacher, beta=1e-9) / 1e-9, forward_kl(student, teacher), rtol=1e-4, atol=0)


def test_extreme_logits_stay_finite_with_finite_gradients():
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 0.0]])
    for name in ("forward_kl", "reverse_kl", "jsd", "skew_kl"):
        value = get_divergence(name)(student, teacher).sum()
        (gradient,) = torch.autograd.grad(value, student)
        assert value.isfinite() and gradient.isfinite().all(), name


def test_half_precision_logits_are_compared_in_float32(logits):
    student, teacher = (tensor.bfloat16() for tensor in logits)
    value = forward_kl(student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), forward_kl(student.double(), teacher.double()), rtol=1e-4, atol=1e-5)


def test_parameters_by_name(logits):
    assert torch.equal(get_divergence("jsd:0.3")(*logits), jsd(*logits, beta=0.3))
    assert torch.equal(get_divergence("skew_kl:0.3")(*logits), skew_kl(*logits, alpha=0.3))


@pytest.mark.parametrize(
    "name, reason",
    [
        ("kl", "there are forward_kl"),
        ("forward_kl:1", "no parameter"),
        ("jsd:1", "between 0 and 1"),
        ("jsd:x", "beta"),
    ],
)
def test_wrong_names(name, reason):
    with pytest.raises(InputError, match=reason):
        get_divergence(name)
