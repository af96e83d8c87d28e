"""MiniLLM's gradient: against the estimator written out, and against the sequence's reverse KL, enumerated."""

import itertools

import pytest
import torch

from align_ti.losses.policy_gradient import log_probabilities, policy_gradient, returns_after
from tests.align_ti.training.whole_objective import HIDDEN, TEACHER_HIDDEN, add, assert_same, settings, total, visual_of

COUNTS = (11.0, 3.0, 3.0)


def estimator(log_s, log_t, targets, sample, normalised):
    """The gradient's surrogate by loops, from log-probabilities ``[L, V]``; returns are constants."""
    value = 0.0
    for t in range(len(targets)):
        value = value + (log_s[t].exp() * (log_s[t] - log_t[t])).sum()
        later = [u for u in range(t + 1, len(targets)) if sample[u] == sample[t]]
        rewards = [(log_t[u, targets[u]] - log_s[u, targets[u]]).item() for u in later]
        if rewards:
            value = value - sum(rewards) / (len(rewards) if normalised else 1) * log_s[t, targets[t]]
    return value


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("vocabularies", [(7, 9), (9, 7)])
def test_against_the_estimator(normalised, vocabularies):
    torch.manual_seed(0)
    hidden, weight = (torch.randn(8, 4).double(), torch.randn(vocabularies[0], 4).double())
    taught, head = torch.randn(8, 5).double(), torch.randn(vocabularies[1], 5).double()
    targets, sample = torch.randint(0, 7, (8,)), torch.tensor([0, 0, 0, 2, 2, 2, 2, 3])  # sample 1 has no response
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    log_s, log_t = (hidden @ weight[:7].T).log_softmax(-1), (taught @ head[:7].T).log_softmax(-1)
    expected = 0.25 * estimator(log_s, log_t, targets.tolist(), sample.tolist(), normalised)
    found = policy_gradient(
        hidden, weight, taught, head, targets=targets, sample=sample, scale=torch.tensor(0.25),
        length_normalised=normalised, chunk_rows=3,
    )  # fmt: skip
    assert found.loss.item() == pytest.approx(expected.item(), rel=1e-10)
    wanted = torch.autograd.grad(expected, leaves)
    for ours, theirs in zip(torch.autograd.grad(found.loss, leaves), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    exact = (log_s.exp() * (log_s - log_t)).sum() * 0.25
    assert found.reverse_kl.item() == pytest.approx(exact.item(), rel=1e-10)


def test_returns():
    rewards, sample = torch.tensor([1.0, 2, 4, 8, 16, 32]), torch.tensor([0, 0, 0, 2, 2, 3])
    assert returns_after(rewards, sample, False).tolist() == [6, 4, 0, 16, 0, 0]
    assert returns_after(rewards, sample).tolist() == [3, 4, 0, 16, 0, 0]
    assert len(returns_after(rewards[:0], sample[:0])) == 0


def test_log_probabilities():
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(7, 4).double(), torch.randn(9, 4).double(), torch.randint(0, 9, (7,))
    expected = (hidden @ weight.T).log_softmax(-1)[torch.arange(7), targets]
    torch.testing.assert_close(log_probabilities(hidden, weight, targets, chunk_rows=2), expected)


END, LONGEST, VOCABULARY = 2, 3, 3


def sequences():
    """Every response over a vocabulary of three: it stops behind the end token, or at the greatest length."""
    for length in range(1, LONGEST + 1):
        for tokens in itertools.product(range(VOCABULARY), repeat=length):
            if END not in tokens[:-1] and (tokens[-1] == END or length == LONGEST):
                yield tokens


def test_its_expectation_is_the_gradient_of_the_sequences_reverse_kl():
    """Without length normalisation; every prefix has a hidden state of its own, all of them learnt."""
    torch.manual_seed(0)
    prefixes = sorted({tokens[:k] for tokens in sequences() for k in range(len(tokens))})
    place = {prefix: index for index, prefix in enumerate(prefixes)}
    student, teacher = torch.randn(len(prefixes), 4).double(), torch.randn(len(prefixes), 5).double()
    weight, head = torch.randn(VOCABULARY, 4).double(), torch.randn(VOCABULARY, 5).double()
    leaves = [student.requires_grad_(), weight.requires_grad_()]
    log_s, log_t = (student @ weight.T).log_softmax(-1), (teacher @ head.T).log_softmax(-1)
    kl, probability = 0.0, 0.0
    expectation = {True: [0.0, 0.0], False: [0.0, 0.0]}
    for tokens in sequences():
        rows = torch.tensor([place[tokens[:k]] for k in range(len(tokens))])
        learnt, taught = (logs[rows, torch.tensor(tokens)].sum() for logs in (log_s, log_t))
        kl = kl + learnt.exp() * (learnt - taught)
        probability += learnt.exp().item()
        for normalised, sums in expectation.items():
            loss = policy_gradient(
                student[rows], weight, teacher[rows], head, targets=torch.tensor(tokens), scale=torch.tensor(1.0),
                sample=torch.zeros(len(tokens), dtype=torch.long), length_normalised=normalised,
            ).loss  # fmt: skip
            for index, gradient in enumerate(torch.autograd.grad(loss, leaves, retain_graph=True)):
                sums[index] = sums[index] + learnt.exp().detach() * gradient
    assert probability == pytest.approx(1.0, abs=1e-12) and len(list(sequences())) == 15
    wanted = torch.autograd.grad(kl, leaves)
    for found, gradient in zip(expectation[False], wanted, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(expectation[True][0], wanted[0], rtol=1e-2)


@pytest.fixture
def models(tiny_model):
    return tiny_model(), tiny_model(vocab=34, hidden=TEACHER_HIDDEN, layers=3, seed=1)


def test_in_the_objective(models, make_batch):
    student, teacher = models
    batch = make_batch("right")
    terms, gradients = total(*models, batch, settings(("pg",)), COUNTS, on_policy=True)
    common = {"attention_mask": batch.attention_mask, "position_ids": batch.position_ids, "use_cache": False}
    visual = visual_of(batch, HIDDEN, 0).requires_grad_()
    hidden = student.model(inputs_embeds=batch.embed(student, visual), **common).last_hidden_state
    with torch.no_grad():
        embeds = batch.embed(teacher, visual_of(batch, TEACHER_HIDDEN, 1))
        taught = teacher.lm_head(teacher.model(inputs_embeds=embeds, **common).last_hidden_state)[..., :31]
    places = (batch.labels != -100).nonzero()
    rows = places[:, 0], places[:, 1] - 1
    log_s, log_t = student.lm_head(hidden)[rows].log_softmax(-1), taught[rows].log_softmax(-1)
    targets, sample = batch.labels[tuple(places.T)].tolist(), places[:, 0].tolist()
    expected = estimator(log_s, log_t, targets, sample, True) / 11
    assert terms["pg"].item() == terms["loss"].item() == pytest.approx(expected.item(), rel=1e-9)
    (wanted,) = torch.autograd.grad(expected, visual)
    torch.testing.assert_close(gradients[0], wanted, rtol=1e-7, atol=1e-12)


def test_nothing_on_the_datas_responses(models, make_batch):
    terms, _ = total(*models, make_batch(), settings(("sft", "pg")), COUNTS)
    assert terms.keys() == {"loss", "sft"} and terms["loss"] == terms["sft"] > 0


@pytest.mark.parametrize("losses", [("pg",), ("sft", "kd", "iva", "tpa", "rel", "pg")])
@pytest.mark.parametrize("side", ["right", "left"])
def test_packing_and_accumulation(losses, side, models, make_batch):
    batch, chosen = make_batch(side), settings(losses)
    expected = total(*models, batch, chosen, COUNTS, on_policy=True)
    assert expected[0]["reverse_kl"] > 0.1
    assert_same(total(*models, batch, settings(losses, packing=True), COUNTS, on_policy=True), expected)
    rows = range(len(batch.ids))
    assert_same(add([total(*models, batch, chosen, COUNTS, rows=[row], on_policy=True) for row in rows]), expected)


def test_it_brings_the_student_to_the_teacher(run, tmp_path):
    """And another split of the batch gives the same steps."""
    flags = (
        "--losses", "pg", "--on_policy_fraction", "1", "--on_policy_max_new_tokens", "6", "--learning_rate", "1e-2",
        "--lr_scheduler_type", "constant", "--max_steps",
    )  # fmt: skip
    whole = steps_of(run(tmp_path / "a", *flags, "24", "--per_device_train_batch_size", "8"))
    assert len(whole) == 24 and sum(row[2] for row in whole[-3:]) < 0.9 * sum(row[2] for row in whole[:3])
    split = ("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "4")
    parts = steps_of(run(tmp_path / "b", *flags, "3", *split))
    assert len(parts) == 3
    for ours, theirs in zip(whole, parts, strict=False):
        assert theirs == pytest.approx(ours, rel=1e-3)


def steps_of(log):
    return [[entry[name] for name in ("loss", "pg", "reverse_kl")] for entry in log if "pg" in entry]
