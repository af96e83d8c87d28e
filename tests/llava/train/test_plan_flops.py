"""FLOPs at the paper's size against an independent estimate made from first principles, part by part."""

from dataclasses import replace

import pytest

from llava.train.arguments import ModelArguments
from llava.train.plan import Method, PlanArguments
from llava.train.plan.batch import Batch, usual_batch, usual_rows
from llava.train.plan.flops import micro_batch_flops, step_seconds
from llava.train.plan.run import Run
from llava.train.plan.text import planned_run

PAPER = Batch(samples=8, tokens=880, visual=729, response=100, rows=1.0)

ROOFLINE = {
    "teacher forward": 91.9 + 1.2,
    "student forward": 5.0 + 0.9 / 3.5,
    "student backward": 10.1 + 0.9 * 2.5 / 3.5,
    "heads, responses": 1.5,
    "recomputation": 5.3 + 0.6,  # of the candidates as well
    "teacher candidates": 10.7,
    "student candidates": 1.9,
    "heads, candidates": 1.8,
    "heads, visual tokens": 11.1,
    "tower": 5.1,
}
"""TFLOP of a micro-batch of 8 samples of 780 + 100 tokens, Qwen2-7B teaching Qwen2-0.5B, one candidate a token."""


def align_ti(**changes) -> Method:
    usual = {"candidates": 4, "visual_rows": True, "attention_map": True}
    return Method("Qwen/Qwen2-7B", chunk_rows=lambda vocabulary: 110, **usual | changes)


def paper_run(method: Method | None, batch: Batch = PAPER, **changes) -> Run:
    if method is None or not method.candidates:
        batch = replace(batch, rows=0.0)
    arguments = PlanArguments(**{"bf16": True, "gradient_checkpointing": True, "model_max_length": 2048} | changes)
    model = ModelArguments(
        "Qwen/Qwen2-0.5B", vision_tower="google/siglip-so400m-patch14-384", mm_projector_type="mlp2x_gelu",
        mm_vision_select_layer=-2,
    )  # fmt: skip
    return replace(planned_run(model, arguments, method), batch=batch)


def test_the_papers_size():
    parts = {name: value / 1e12 for name, value in micro_batch_flops(paper_run(align_ti())).items()}
    assert parts.pop("projector") < 0.5
    assert parts == {name: pytest.approx(value, rel=0.04) for name, value in ROOFLINE.items()}


def test_ratio_to_vanilla_kd():
    """Without the tower and checkpointing: 1.23 with IVA's heads, 1.13 without them, 1.15 with 128 of 729 rows."""
    totals = []
    methods = (align_ti(candidates=0, visual_rows=False), align_ti(), align_ti(visual_rows=False))
    for method in (*methods, align_ti(drawn_rows=128), align_ti(drawn_rows=729)):
        parts = micro_batch_flops(paper_run(method, gradient_checkpointing=False))
        totals.append(sum(value for name, value in parts.items() if name not in ("tower", "projector")))
    assert totals[1] / totals[0] == pytest.approx(1.23, abs=0.01)
    assert totals[2] / totals[0] == pytest.approx(1.13, abs=0.01)
    assert totals[3] - totals[2] == pytest.approx(128 / 729 * (totals[1] - totals[2])) and totals[4] == totals[1]
    assert totals[3] / totals[0] == pytest.approx(1.147, abs=0.005)


def test_algorithm_1_costs_about_what_the_paper_says():
    """1.4 times vanilla KD with 4 candidates a token."""
    batch = replace(PAPER, rows=4.0)
    usual = {"visual_rows": False, "attention_map": False}
    vanilla = sum(micro_batch_flops(paper_run(align_ti(candidates=0, **usual), batch)).values())
    single = sum(micro_batch_flops(paper_run(align_ti(interleaved=True, **usual), batch)).values())
    assert 1.35 < single / vanilla < 1.6


def test_a_frozen_model_makes_half_a_backward():
    run = paper_run(None)
    whole, frozen = (micro_batch_flops(replace(run, trains_language=trained)) for trained in (True, False))
    products = 2 * run.student.shape.layers * run.student.shape.products * PAPER.places
    assert whole["student backward"] - frozen["student backward"] == pytest.approx(products)
    assert whole["head"] == pytest.approx(1.5 * frozen["head"])


def test_seconds_of_a_step():
    run = paper_run(align_ti(on_policy=0.5, new_tokens=64), gradient_accumulation_steps=3, plan_mfu=0.5)
    compute, sampling = step_seconds(run)
    assert compute == pytest.approx(3 * sum(micro_batch_flops(run).values()) / (989e12 * 0.5))
    assert sampling == pytest.approx(3 * 0.5 * 64 * 0.025)
    assert step_seconds(paper_run(align_ti()))[1] == 0


def test_a_step_of_filled_micro_batches():
    """8 x 3 samples of 880 tokens a GPU are 21,120 tokens: three micro-batches of at most 8,192."""
    planned = PlanArguments(gradient_accumulation_steps=3, model_max_length=2048, max_tokens_per_batch=8192)
    batch = usual_batch(planned, None, 729)
    assert batch.samples == 8 and batch.tokens == 880
    planned = replace(planned, max_tokens_per_batch=6000)
    batch = usual_batch(planned, None, 729)
    assert batch.samples == 6
    run = replace(paper_run(None, batch), arguments=planned)
    seconds = 4 * sum(micro_batch_flops(run).values()) / (989e12 * 0.4)
    assert step_seconds(run)[0] == pytest.approx(seconds)


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"candidates": 0}, 0), ({"candidates": 4, "merged": False}, 4), ({"candidates": 4, "greedy": True}, 3),
        ({"candidates": 1}, 0.33), ({"candidates": 2}, 0.56), ({"candidates": 4}, 0.93), ({"candidates": 8}, 1.48),
    ],
)  # fmt: skip
def test_candidates_left_by_merging_are_those_measured(changes, expected):
    """Means over training on the miniature, docs/results/README.md."""
    assert usual_rows(PlanArguments(), align_ti(**changes)) == pytest.approx(expected, rel=0.05)
    assert usual_rows(PlanArguments(plan_candidate_rows=2.5), align_ti(candidates=4)) == 2.5


def test_lengths_come_from_the_data():
    """10 words of a question and 20 of an answer, with and without a picture; 1.3 tokens a word and one a turn."""
    turns = [{"from": "human", "value": "q " * 10}, {"from": "gpt", "value": "a " * 20}]
    entries = [{"image": ["x.png"], "conversations": turns}, {"image": [], "conversations": turns}]
    batch = usual_batch(PlanArguments(model_max_length=900), None, 729, entries)
    assert (batch.tokens, batch.visual, batch.response) == (pytest.approx(729 / 2 + 14 + 27), 729 / 2, 27)
    cut = usual_batch(PlanArguments(model_max_length=750), None, 729, entries[:1])
    assert (cut.tokens, cut.visual, cut.response) == (750, 729, pytest.approx(7))
    nothing = usual_batch(PlanArguments(model_max_length=2048), None, 729)
    assert (nothing.tokens, nothing.visual, nothing.response) == (880, 729, 100)
