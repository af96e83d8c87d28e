"""The chunked heads against plain torch: values, gradients, precision, memory, and what is refused."""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from align_ti.losses.divergences import get_divergence
from align_ti.losses.linear_heads import linear_divergence
from llava.errors import InputError

N, V_S, V_T, D_S, D_T = 13, 37, 40, 8, 12


class Heads:
    """Hidden states and heads of both models, with weights of every kind of row."""

    def __init__(self, dtype=torch.float64, student_vocabulary=V_S, teacher_vocabulary=V_T, rows=N):
        torch.manual_seed(0)
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        self.hidden = torch.randn(rows, D_S, dtype=dtype, requires_grad=True)
        self.head = torch.randn(student_vocabulary, D_S, dtype=dtype, requires_grad=True)
        self.teacher = torch.randn(rows, D_T, dtype=dtype), torch.randn(teacher_vocabulary, D_T, dtype=dtype)
        self.weights = torch.rand(rows, dtype=exact)
        self.ce_weights = torch.rand(rows, dtype=exact)
        self.weights[[0, 3, 4]] = 0
        self.ce_weights[[1, 3, 7, 8, 9]] = 0  # row 3: neither
        self.targets = torch.randint(0, student_vocabulary, (rows,))
        self.targets[0] = student_vocabulary - 1  # beyond the common rows when the teacher has fewer
        self.targets[[3, 7]] = -100

    def chunked(self, **kwargs):
        return linear_divergence(
            self.hidden,
            self.head,
            *self.teacher,
            weights=self.weights,
            targets=self.targets,
            ce_weights=self.ce_weights,
            **kwargs,
        )

    def plain(self, name="forward_kl", temperature=1.0):
        logits = self.hidden @ self.head.T
        teacher_logits = self.teacher[0] @ self.teacher[1].T
        common = min(logits.shape[1], teacher_logits.shape[1])
        divergence = get_divergence(name)(logits[:, :common] / temperature, teacher_logits[:, :common] / temperature)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        ce = cross_entropy(logits, self.targets, reduction="none", ignore_index=-100)
        return (self.weights * divergence).sum() + (self.ce_weights * ce).sum(), divergence, ce

    def gradients(self, loss, scale=1.0):
        return torch.autograd.grad(scale * loss, (self.hidden, self.head))


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jsd:0.3", "skew_kl"])
@pytest.mark.parametrize("chunk_rows", [1, 3, N, None])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_equals_plain_version(name, chunk_rows, temperature):
    heads = Heads()
    result = heads.chunked(divergence=name, chunk_rows=chunk_rows, temperature=temperature)
    loss, divergence, ce = heads.plain(name, temperature=temperature)
    torch.testing.assert_close(result.loss, loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(result.divergence, divergence.where(heads.weights != 0, 0), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(result.cross_entropy, ce.where(heads.ce_weights != 0, 0), rtol=1e-12, atol=0)
    assert not result.divergence.requires_grad and not result.cross_entropy.requires_grad
    for ours, plain in zip(heads.gradients(result.loss, 0.3), heads.gradients(loss, 0.3), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)


def test_compiled_in_half_precision(compiler):
    """As in training under autocast: logits in bfloat16, losses in float32."""
    results = []
    for compiled in (False, True):
        heads = Heads(dtype=torch.float32, rows=40)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = heads.chunked(chunk_rows=7, compiled=compiled)
        results.append((result.loss, result.divergence, *heads.gradients(result.loss)))
    for plain, fused in zip(*results, strict=True):
        assert fused.dtype == torch.float32
        assert (fused - plain).norm() < 2e-3 * plain.norm()


@pytest.mark.parametrize("name", ["forward_kl", "jsd:0.3"])
def test_compiled_equals_plain_version(name, compiler):
    heads = Heads()
    result = heads.chunked(divergence=name, chunk_rows=3, compiled=True)
    loss, divergence, ce = heads.plain(name)
    torch.testing.assert_close(result.loss, loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(result.divergence, divergence.where(heads.weights != 0, 0), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(result.cross_entropy, ce.where(heads.ce_weights != 0, 0), rtol=1e-12, atol=0)
    for ours, plain in zip(heads.gradients(result.loss), heads.gradients(loss), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)


def test_a_missing_compiler_is_said_before_training(tmp_path):
    code = "import torch; from align_ti.losses.forward_kl import check_compiler; check_compiler(torch.device('cpu'))"
    environment = {**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "InputError: --compile_losses needs torch.compile, which does not run here" in done.stderr


@pytest.mark.parametrize("vocabularies", [(37, 40), (40, 37), (37, 37)])
def test_vocabularies_of_different_size(vocabularies):
    heads = Heads(student_vocabulary=vocabularies[0], teacher_vocabulary=vocabularies[1])
    result = heads.chunked(chunk_rows=4)
    loss, *_ = heads.plain()
    torch.testing.assert_close(result.loss, loss, rtol=1e-12, atol=0)
    for ours, plain in zip(heads.gradients(result.loss), heads.gradients(loss), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)


def test_gradcheck():
    heads = Heads(rows=10)
    assert torch.autograd.gradcheck(
        lambda hidden, head: linear_divergence(
            hidden, head, *heads.teacher, weights=heads.weights, targets=heads.targets,
            ce_weights=heads.ce_weights, chunk_rows=4,
        ).loss,
        (heads.hidden, heads.head),
    )  # fmt: skip


def test_gradient_twice_with_retained_graph():
    heads = Heads()
    loss = heads.chunked(chunk_rows=4).loss
    first = torch.autograd.grad(2.0 * loss, (heads.hidden, heads.head), retain_graph=True)
    second = torch.autograd.grad(2.0 * loss, (heads.hidden, heads.head))
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one, two)


def test_frozen_head_or_hidden_states():
    heads = Heads()
    loss, *_ = heads.plain()
    hidden_gradient, head_gradient = heads.gradients(loss)
    heads.head.requires_grad_(False)
    (ours,) = torch.autograd.grad(heads.chunked(chunk_rows=4).loss, heads.hidden)
    torch.testing.assert_close(ours, hidden_gradient, rtol=1e-10, atol=1e-12)
    heads.head.requires_grad_(True)
    heads.hidden.requires_grad_(False)
    (ours,) = torch.autograd.grad(heads.chunked(chunk_rows=4).loss, heads.head)
    torch.testing.assert_close(ours, head_gradient, rtol=1e-10, atol=1e-12)


def test_without_gradients():
    heads = Heads()
    with torch.no_grad():
        result = heads.chunked(chunk_rows=4)
    assert not result.loss.requires_grad
    torch.testing.assert_close(result.loss, heads.plain()[0].detach(), rtol=1e-12, atol=0)


def test_cross_entropy_alone_needs_no_teacher():
    heads = Heads()
    result = linear_divergence(
        heads.hidden, heads.head, targets=heads.targets, ce_weights=heads.ce_weights, chunk_rows=4
    )
    kept = heads.ce_weights != 0
    expected = cross_entropy((heads.hidden @ heads.head.T)[kept], heads.targets[kept], reduction="none")
    torch.testing.assert_close(result.loss, (heads.ce_weights[kept] * expected).sum(), rtol=1e-12, atol=0)


def test_all_weights_zero_gives_zero_gradients():
    heads = Heads()
    heads.weights.zero_()
    heads.ce_weights.zero_()
    result = heads.chunked()
    assert result.loss == 0 and result.loss.requires_grad
    assert all(gradient.eq(0).all() for gradient in heads.gradients(result.loss))


def test_no_rows():
    heads = Heads(rows=10)
    empty = torch.empty(0, D_S, dtype=torch.float64, requires_grad=True)
    result = linear_divergence(empty, heads.head, heads.teacher[0][:0], heads.teacher[1], weights=torch.empty(0))
    gradient, _ = torch.autograd.grad(result.loss, (empty, heads.head))
    assert result.loss == 0 and gradient.shape == (0, D_S)


def test_bfloat16():
    heads = Heads(dtype=torch.bfloat16, rows=300)
    result = heads.chunked(chunk_rows=7)
    assert result.loss.dtype == torch.float32
    exact = Heads(dtype=torch.bfloat16, rows=300)
    exact.hidden, exact.head = (t.detach().double().requires_grad_() for t in (heads.hidden, heads.head))
    exact.teacher = heads.teacher[0].double(), heads.teacher[1].double()
    loss, *_ = exact.plain()
    torch.testing.assert_close(result.loss.double(), loss, rtol=1e-3, atol=0)
    for ours, wanted in zip(heads.gradients(result.loss), exact.gradients(loss), strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.double() - wanted).norm() < 0.01 * wanted.norm()


def test_head_gradient_is_accumulated_above_bfloat16():
    """One row of gradient 1 and thousands of 1/512: added one by one in bfloat16 they would be lost."""
    rows = 2049
    hidden = torch.full((rows, 1), 1.0, dtype=torch.bfloat16)
    hidden[1:] = 1 / 512
    head = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)  # both tokens at one half
    loss = linear_divergence(
        hidden, head, targets=torch.zeros(rows, dtype=torch.long), ce_weights=torch.ones(rows), chunk_rows=1
    ).loss
    (gradient,) = torch.autograd.grad(loss, head)
    assert gradient.flatten().tolist() == [-2.5, 2.5]  # half of 1 + 2048/512


def test_autocast_runs_the_heads_in_bfloat16():
    heads = Heads(dtype=torch.float32, rows=40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = heads.chunked(chunk_rows=7)
    plain, *_ = heads.plain()
    assert result.loss != plain  # bfloat16 products, not float32
    torch.testing.assert_close(result.loss, plain, rtol=2e-2, atol=0)
    for ours, wanted in zip(heads.gradients(result.loss), heads.gradients(plain), strict=True):
        assert ours.dtype == torch.float32
        assert (ours - wanted).norm() < 0.02 * wanted.norm()


class LargestTensor(TorchDispatchMode):
    """The largest number of elements any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, torch.Tensor):
                self.numel = max(self.numel, leaf.numel())
        return output


def test_rows_times_vocabulary_is_never_held():
    rows, vocabulary, width, chunk = 400, 500, 8, 16
    torch.manual_seed(0)
    hidden = torch.randn(rows, width, requires_grad=True)
    head = torch.randn(vocabulary, width, requires_grad=True)
    with LargestTensor() as watch:
        linear_divergence(
            hidden, head, torch.randn(rows, width), torch.randn(vocabulary, width), weights=torch.ones(rows),
            targets=torch.zeros(rows, dtype=torch.long), ce_weights=torch.ones(rows), chunk_rows=chunk,
        ).loss.backward()  # fmt: skip
    assert watch.numel == chunk * vocabulary
    with LargestTensor() as watch:
        (hidden @ head.T).sum().backward()
    assert watch.numel == rows * vocabulary  # the watch sees the plain version


def test_rows_without_weight_never_reach_the_heads():
    heads = Heads()
    with torch.no_grad():
        heads.hidden[3] = torch.nan
        heads.teacher[0][[0, 3, 4]] = torch.nan  # no divergence weight: the teacher's head skips them
    result = heads.chunked(chunk_rows=5)
    assert result.loss.isfinite()
    gradient, head_gradient = heads.gradients(result.loss)
    assert gradient[3].eq(0).all() and gradient.isfinite().all() and head_gradient.isfinite().all()


def test_wrong_input_is_named():
    heads = Heads()
    with pytest.raises(InputError, match="13 student rows but 12"):
        linear_divergence(heads.hidden, heads.head, heads.teacher[0][1:], heads.teacher[1])
    with pytest.raises(InputError, match=r"weights has shape \(3,\)"):
        linear_divergence(heads.hidden, heads.head, *heads.teacher, weights=torch.ones(3))
    with pytest.raises(InputError, match="no teacher"):
        linear_divergence(heads.hidden, heads.head, weights=torch.ones(N))
    with pytest.raises(InputError, match="no target"):
        linear_divergence(heads.hidden, heads.head, targets=heads.targets, ce_weights=torch.ones(N))
    with pytest.raises(InputError, match="teacher hidden states and head"):
        linear_divergence(heads.hidden, heads.head, heads.teacher[0], heads.teacher[1].T)
    with pytest.raises(InputError, match="temperature"):
        heads.chunked(temperature=0)
    with pytest.raises(InputError, match="chunk_rows"):
        heads.chunked(chunk_rows=0)
    with pytest.raises(InputError, match="unknown divergence"):
        heads.chunked(divergence="nope")
