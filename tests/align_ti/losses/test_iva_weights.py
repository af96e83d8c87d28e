"""IVA's weights from the student's attention and equal weights, against loops with full logits."""

import pytest
import torch

from align_ti.config import ObjectiveConfig
from align_ti.losses.batch import images, instructed_images
from align_ti.losses.iva import IVAConfig, even_rows, uniform_rows
from align_ti.losses.rows import WeightedRows
from align_ti.objective import Objective
from llava.errors import InputError
from tests.align_ti.training.whole_objective import HIDDEN, TEACHER_HIDDEN, add, assert_same, settings, total, visual_of

COUNTS = {"student": (11.0, 3.0, 5.0), "teacher_mean": (11.0, 3.0, 5.0), "uniform": (11.0, 5.0, 3.0)}
"""Tokens, samples with image and instruction, samples with image: each kind of weights has its own denominator."""


@pytest.fixture
def models(tiny_model):
    return tiny_model(layers=3), tiny_model(vocab=34, hidden=TEACHER_HIDDEN, layers=2, seed=1)


def plain(student, teacher, batch, layer, weigh):
    """The term by loops: eager attention, whole logits; ``weigh(attention of the layer, instruction rows)`` -> [S]."""
    common = {"attention_mask": batch.attention_mask, "position_ids": batch.position_ids, "use_cache": False}
    visual = visual_of(batch, HIDDEN, 0).requires_grad_()
    hidden = student.model(inputs_embeds=batch.embed(student, visual), **common).last_hidden_state
    with torch.no_grad():
        embeds = batch.embed(teacher, visual_of(batch, TEACHER_HIDDEN, 1))
        taught = teacher.model(inputs_embeds=embeds, **common).last_hidden_state
        student.set_attn_implementation("eager")
        eager = student.model(inputs_embeds=batch.embed(student, visual), output_attentions=True, **common)
        student.set_attn_implementation("align_ti")
    value = 0.0
    for sample in range(len(batch.ids)):
        instruction = batch.instruction_mask[sample].nonzero().flatten().tolist()
        places = batch.visual_mask[sample].nonzero().flatten().tolist()
        for k in places:
            weight = weigh(eager.attentions[layer][sample], instruction, k, len(places))
            log_s = student.lm_head(hidden[sample, k]).log_softmax(-1)
            log_t = teacher.lm_head(taught[sample, k])[:31].log_softmax(-1)
            value = value + weight * (log_t.exp() * (log_t - log_s)).sum()
    return value, torch.autograd.grad(value, [visual, student.lm_head.weight])


def students_attention(attention, instruction, k, places):
    return sum(attention[:, u, k].mean() for u in instruction) / len(instruction)


@pytest.mark.parametrize("weights", ["student", "uniform"])
def test_against_loops(weights, models, make_batch):
    student, teacher = models
    batch = make_batch("right")  # eager takes no left padding in float64
    layer = 2  # the student has one, the teacher has not
    weigh = students_attention if weights == "student" else (lambda attention, instruction, k, places: 1 / places)
    expected, gradients = plain(student, teacher, batch, layer, weigh)
    options = {"iva_layer": layer if weights == "student" else "auto", "iva_weights": weights}
    terms, found = total(student, teacher, batch, settings(("iva",), **options), COUNTS[weights])
    assert terms["iva"] == pytest.approx(expected.item() / 3, rel=1e-6) and expected > 0.01
    torch.testing.assert_close(found[0], gradients[0] / 3, rtol=1e-5, atol=1e-7)  # eager: a float32 softmax
    torch.testing.assert_close(found[-1], gradients[1] / 3, rtol=1e-5, atol=1e-7)  # eager: a float32 softmax


def test_the_sources_differ(models, make_batch):
    values = [
        total(*models, make_batch(), settings(("iva",), iva_weights=weights))[0]["iva"].item()
        for weights in ("teacher", "student", "uniform", "teacher_mean")
    ]
    assert len({round(value, 6) for value in values}) == 4


@pytest.mark.parametrize("rows", [0, 2])
@pytest.mark.parametrize("weights", ["student", "uniform", "teacher_mean"])
@pytest.mark.parametrize("losses", [("kd", "iva", "tpa"), ("iva",)])
@pytest.mark.parametrize("side", ["right", "left"])
def test_packed_and_algorithm1_give_the_same(weights, losses, side, rows, models, make_batch):
    batch = make_batch(side)
    layer = {"student": 2, "teacher_mean": 1, "uniform": "auto"}[weights]
    options = {"iva_weights": weights, "iva_layer": layer, "iva_rows": rows}
    expected = total(*models, batch, settings(losses, **options))
    assert_same(total(*models, batch, settings(losses, packing=True, **options)), expected)
    plain = total(*models, batch, settings(losses, merge_draws=False, **options))
    assert_same(total(*models, batch, settings(losses, merge_draws=False, ribbon="algorithm1", **options)), plain)


@pytest.mark.parametrize("rows", [0, 2])
@pytest.mark.parametrize("weights", ["student", "uniform", "teacher_mean"])
def test_accumulation_does_not_change_it(weights, rows, models, make_batch):
    batch = make_batch()
    chosen = settings(("sft", "iva"), iva_weights=weights, iva_rows=rows)
    parts = [total(*models, batch, chosen, COUNTS[weights], rows=[row]) for row in range(len(batch.ids))]
    assert_same(add(parts), total(*models, batch, chosen, COUNTS[weights]))


def test_equal_weights_sum_to_one_a_sample():
    rows = uniform_rows(torch.tensor([1, 2, 8]), torch.tensor([0, 0, 2]))
    assert rows.index.tolist() == [1, 2, 8] and rows.weight.tolist() == [0.5, 0.5, 1.0]
    nothing = uniform_rows(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long))
    assert len(nothing.index) == len(nothing.weight) == 0


def test_even_weights_sum_to_what_attention_does():
    """Sample by sample; one between them has no picture, the last one's instruction is empty."""
    sample = torch.tensor([0, 0, 2, 2, 2, 3])
    rows = WeightedRows(torch.tensor([1, 2, 8, 9, 10, 12]), torch.tensor([0.1, 0.3, 0.0, 0.0, 0.6, 0.0]))
    even = even_rows(rows, sample)
    assert even.index is rows.index
    assert even.weight.tolist() == pytest.approx([0.2, 0.2, 0.2, 0.2, 0.2, 0.0])


def test_equal_weights_need_an_image_and_no_instruction():
    batch = {
        "input_ids": torch.tensor([[-200, 5, 6], [-200, 5, 6], [4, 5, 6]]),
        "instruction_mask": torch.tensor([[0, 1, 0], [0, 0, 0], [0, 1, 0]], dtype=torch.bool),
    }
    assert instructed_images(batch) == 1 and images(batch) == 2


def test_refusals(models):
    _, teacher = models
    Objective(teacher, ObjectiveConfig(iva=IVAConfig(weights="uniform")))  # needs no layer
    for weights in ("teacher", "student", "teacher_mean"):
        for layer in ("auto", "75%"):
            with pytest.raises(InputError, match=f"iva.layer is '{layer}', so no layer was chosen"):
                Objective(teacher, ObjectiveConfig(iva=IVAConfig(weights=weights, layer=layer)))
    with pytest.raises(InputError, match="teacher, student, uniform, teacher_mean"):
        IVAConfig(layer=1, weights="both")
