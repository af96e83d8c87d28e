"""Relational distillation against loops over whole logits; the head's second moment; batch splits."""

import pytest
import torch

from align_ti.losses import relational
from align_ti.losses.relational import RelationalConfig, RelationalLoss, second_moment
from llava.errors import InputError
from tests.align_ti.training.whole_objective import HIDDEN, TEACHER_HIDDEN, add, assert_same, settings, total, visual_of

COUNTS = (11.0, 5.0, 3.0)


@pytest.fixture
def models(tiny_model):
    return tiny_model(), tiny_model(vocab=34, hidden=TEACHER_HIDDEN, layers=3, seed=1)


def cosine(a, b):
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


def plain(logits, taught, samples, similarity):
    """The sum over samples by loops over pairs of tokens, from logits ``[R, V]`` of both."""
    value = 0.0
    for sample in sorted(set(samples)):
        rows = [row for row, its in enumerate(samples) if its == sample]
        compare = cosine if similarity == "cosine" else (lambda a, b: (a * b).sum())
        ours = torch.stack([compare(logits[i], logits[j]) for i in rows for j in rows])
        theirs = torch.stack([compare(taught[i], taught[j]) for i in rows for j in rows])
        value = value + 1 - cosine(ours, theirs)
    return value


@pytest.mark.parametrize("similarity", ["cosine", "product"])
@pytest.mark.parametrize("vocabularies", [(7, 9), (9, 7)])
def test_against_loops(similarity, vocabularies, monkeypatch):
    monkeypatch.setattr(relational, "head_rows", lambda weight: 2)  # several blocks, the last one shorter
    torch.manual_seed(0)
    samples = [0, 0, 0, 2, 2, 2, 2, 3]  # sample 1 has no image
    hidden, weight = torch.randn(8, 4).double().requires_grad_(), torch.randn(vocabularies[0], 4).double()
    weight.requires_grad_()
    taught, head = torch.randn(8, 5).double(), torch.randn(vocabularies[1], 5).double()
    loss = RelationalLoss(RelationalConfig(similarity=similarity))
    expected = plain(hidden @ weight[:7].T, taught @ head[:7].T, samples, similarity)
    wanted = torch.autograd.grad(expected, [hidden, weight])
    for _ in range(2):  # the second time with the teacher's matrix kept
        value = loss.over_samples(hidden, weight, taught, head, torch.tensor(samples))
        assert value.item() == pytest.approx(expected.item(), rel=1e-12) and value > 0.05
        for ours, theirs in zip(torch.autograd.grad(value, [hidden, weight]), wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_second_moment(monkeypatch):
    monkeypatch.setattr(relational, "head_rows", lambda weight: 3)
    torch.manual_seed(0)
    weight = torch.randn(10, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: second_moment(w, 7), weight)
    torch.testing.assert_close(second_moment(weight, 7), weight[:7].T @ weight[:7])


def test_zero_for_the_same_geometry():
    torch.manual_seed(0)
    hidden, head = torch.randn(6, 4).double(), torch.randn(9, 4).double()
    turn, _ = torch.linalg.qr(torch.randn(4, 4).double())
    sample = torch.zeros(6, dtype=torch.long)
    loss = RelationalLoss(RelationalConfig())
    assert loss.over_samples(3 * hidden @ turn, head @ turn, hidden, head, sample).abs() < 1e-12
    assert loss.over_samples(hidden.flip(0), head, hidden, head, sample) > 0.05


def test_in_the_objective(models, make_batch):
    student, teacher = models
    batch = make_batch("right")
    chosen = settings(("sft", "rel"), rel_similarity="product")
    terms, gradients = total(*models, batch, chosen, COUNTS)
    common = {"attention_mask": batch.attention_mask, "position_ids": batch.position_ids, "use_cache": False}
    visual = visual_of(batch, HIDDEN, 0).requires_grad_()
    hidden = student.model(inputs_embeds=batch.embed(student, visual), **common).last_hidden_state
    with torch.no_grad():
        embeds = batch.embed(teacher, visual_of(batch, TEACHER_HIDDEN, 1))
        taught = teacher.lm_head(teacher.model(inputs_embeds=embeds, **common).last_hidden_state)
    logits = student.lm_head(hidden)
    places = batch.visual_mask.nonzero()
    expected = plain(logits[batch.visual_mask], taught[batch.visual_mask][:, :31], places[:, 0].tolist(), "product") / 3
    assert terms["rel"].item() == pytest.approx(expected.item(), rel=1e-9) and expected > 0.01
    assert terms["loss"].item() == pytest.approx((terms["sft"] + terms["rel"]).item(), rel=1e-12)
    with_sft_alone = total(*models, batch, settings(("sft",)), COUNTS)[1]
    (wanted,) = torch.autograd.grad(expected, visual)
    torch.testing.assert_close(gradients[0] - with_sft_alone[0], wanted, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("losses", [("rel",), ("sft", "kd", "iva", "tpa", "rel")])
@pytest.mark.parametrize("side", ["right", "left"])
def test_packing_ribbons_and_accumulation(losses, side, models, make_batch):
    batch = make_batch(side)
    chosen = settings(losses)
    expected = total(*models, batch, chosen, COUNTS)
    assert expected[0]["rel"] > 0.01
    assert_same(total(*models, batch, settings(losses, packing=True), COUNTS), expected)
    assert_same(add([total(*models, batch, chosen, COUNTS, rows=[row]) for row in range(len(batch.ids))]), expected)
    if "tpa" in losses:
        plain = total(*models, batch, settings(losses, merge_draws=False), COUNTS)
        single = settings(losses, merge_draws=False, ribbon="algorithm1")
        assert_same(total(*models, batch, single, COUNTS), plain)


def test_a_batch_without_images_keeps_the_graph(models, make_batch):
    terms, gradients = total(*models, make_batch(names=("text",)), settings(("rel",)), COUNTS)
    assert terms["rel"] == 0 and terms["loss"] == 0
    assert all((gradient == 0).all() for gradient in gradients)


def test_an_unknown_similarity_is_refused():
    with pytest.raises(InputError, match="cosine, product"):
        settings(("rel",), rel_similarity="angle")
