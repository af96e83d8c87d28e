"""Top-k forward KL against float64 loops over probabilities, its gradient, and its limits."""

import pytest
import torch

from align_ti.losses.divergences import forward_kl
from align_ti.losses.topk import TopK, TopKConfig, topk_kl
from align_ti.training.arguments import DistillArguments
from align_ti.training.plan_facts import planned_method
from llava.errors import InputError
from llava.train.plan import PlanArguments
from tests.align_ti.training.whole_objective import TEACHER_HIDDEN, assert_same, settings, total

COUNTS = (11.0, 3.0, 5.0)


@pytest.fixture
def models(tiny_model):
    return tiny_model(), tiny_model(vocab=34, hidden=TEACHER_HIDDEN, layers=3, seed=1)


def plain(student, teacher, k):
    """Row by row from probabilities: keep the teacher's k largest, divide by their sums, compare."""
    values = []
    for p_s, p_t in zip(student.double().softmax(-1), teacher.double().softmax(-1), strict=True):
        kept = sorted(range(len(p_t)), key=lambda token: -p_t[token].item())[:k]
        q_s = [p_s[token] / sum(p_s[other] for other in kept) for token in kept]
        q_t = [p_t[token] / sum(p_t[other] for other in kept) for token in kept]
        values.append(sum(t * (t.log() - s.log()) for s, t in zip(q_s, q_t, strict=True)))
    return torch.stack(values)


@pytest.mark.parametrize("k", [2, 5, 12])
def test_against_loops(k):
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 12).double().requires_grad_(), 2 * torch.randn(6, 12).double()
    expected, found = plain(student, teacher, k), topk_kl(student, teacher, k)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    wanted = torch.autograd.grad(expected.sum(), student)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), student), wanted, rtol=1e-10, atol=1e-13)
    assert torch.autograd.gradcheck(lambda logits: topk_kl(logits, teacher, k), student)
    assert topk_kl(student.float(), teacher.float(), k).dtype == torch.float32


def test_all_tokens_make_it_the_forward_kl():
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 9).double(), torch.randn(4, 9).double()
    for k in (9, 64):
        torch.testing.assert_close(topk_kl(student, teacher, k), forward_kl(student, teacher), rtol=1e-12, atol=0)


def test_the_rest_of_the_mass_is_left_open():
    """Another student with the same proportions among the kept tokens has the same loss."""
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 9).double(), torch.randn(4, 9).double()
    rest = torch.ones(4, 9).double().scatter(-1, teacher.topk(3).indices, 0.0)
    torch.testing.assert_close(topk_kl(student + 5 * rest, teacher, 3), topk_kl(student, teacher, 3))
    assert (topk_kl(teacher + 5 * rest, teacher, 3).abs() < 1e-14).all()


def test_beside_the_others_and_alone(models, make_batch):
    """It adds up with losses of the shared pass; over the whole vocabulary it is KD, temperature included."""
    batch = make_batch()
    for temperature in (1.0, 2.0):
        flags = {"kd_temperature": temperature, "topk_k": 64}
        kd = total(*models, batch, settings(("kd",), **flags), COUNTS)
        topk = total(*models, batch, settings(("topk",), **flags), COUNTS)
        assert_same(({"loss": topk[0]["topk"]}, topk[1]), ({"loss": kd[0]["kd"]}, kd[1]))
    flags = {"topk_k": 4, "topk_weight": 0.5, "divergence": "reverse_kl"}  # its own divergence stays the forward one
    alone = total(*models, batch, settings(("topk",), topk_k=4, topk_weight=0.5), COUNTS)
    others = total(*models, batch, settings(("sft", "kd", "iva", "tpa"), **flags), COUNTS)
    both = total(*models, batch, settings(("sft", "kd", "topk", "iva", "tpa"), **flags), COUNTS)
    added = {**others[0], "topk": alone[0]["topk"], "loss": others[0]["loss"] + alone[0]["loss"]}
    assert_same(both, (added, [ours + theirs for ours, theirs in zip(others[1], alone[1], strict=True)]))


def test_its_function_stays_one():
    """So that ``torch.compile`` compiles it once, not in every step."""
    loss = TopK(TopKConfig(k=4))
    assert loss.compares is loss.compares


def test_its_pass_is_in_the_plan():
    """It goes through both heads by itself; the other losses of responses share one pass."""
    for losses, passes in (("sft,kd,tpa", 1), ("topk", 1), ("sft,topk", 2), ("iva", 0)):
        method = planned_method(DistillArguments("teacher", losses=losses), PlanArguments(use_cpu=True))
        assert method.response_rows == passes


def test_its_flags():
    with pytest.raises(InputError, match="^--topk_k is 1; expected a whole number of tokens, at least 2"):
        DistillArguments("teacher", losses="sft,topk", topk_k=1)


def test_a_run_lowers_it_and_logs_it(run, tmp_path):
    flags = ("--losses", "sft,topk", "--topk_k", "8", "--per_device_train_batch_size", "8", "--max_steps", "6")
    log = [entry for entry in run(tmp_path, *flags) if "topk" in entry]
    assert len(log) == 6 and log[-1]["topk"] < 0.9 * log[0]["topk"]
    assert "| top-k KD | k 8 |" in (tmp_path / "README.md").read_text()
