"""The benchmark counts what it says, and the counted costs have the shape the design promises."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from torch._dynamo.utils import counters

from align_ti import numerics as chunks
from align_ti.studies.common.measure import LiveBytes, flop_counter, peak_memory, ratio, seconds
from align_ti.studies.cost import __main__ as entry
from align_ti.studies.cost.heads import head_memory
from align_ti.studies.cost.methods import METHODS, Bench, chosen_draws
from align_ti.studies.cost.sizes import PRESETS, Decoder, Geometry
from llava.errors import InputError

CPU = torch.device("cpu")
SMALL = Geometry(
    teacher=Decoder(96, 3, 4, 4, 288, 160),
    student=Decoder(32, 2, 4, 2, 96, 150, tied=True),
    prompt=60,
    visual=40,
    instruction=10,
    responses=(24, 6),
    rows=0.5,
    rounds=2,
)


def flops(name, **changes):
    settings = {key: changes.pop(key) for key in ("packing", "backend", "checkpointing") if key in changes}
    work = Bench(SMALL.with_changes(**changes), CPU, **settings)
    with flop_counter() as counter:
        work.step(name)()
    return counter.get_total_flops()


def test_flops_of_a_product_and_of_attention():
    x, w = torch.randn(3, 5, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    with flop_counter() as counter:
        (x @ w).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 3 * 5 * 7
    with flop_counter() as counter:
        torch.zeros(3, 7).addmm_(torch.ones(3, 5), torch.ones(5, 7))
    assert counter.get_total_flops() == 2 * 3 * 5 * 7
    q, k = torch.randn(1, 4, 10, 8, requires_grad=True), torch.randn(1, 4, 6, 8, requires_grad=True)
    with flop_counter() as counter:
        torch.nn.functional.scaled_dot_product_attention(q, k, k).sum().backward()
    assert counter.get_total_flops() == (2 + 5) * 2 * 4 * 10 * 6 * 8


def test_live_bytes():
    with LiveBytes() as live:
        first = torch.zeros(1000)
        view = first.view(10, 100)
        second = view + 1
        assert live.now == 8000
        del second
        assert live.now == 4000 and live.peak == 8000
    weights = torch.nn.Linear(100, 100, bias=False)
    peak = peak_memory(lambda: weights(torch.zeros(1, 100)), (weights,), CPU)
    assert 40000 + 800 <= peak < 42000


@pytest.mark.parametrize("rows", [0, 0.3, 1, 2.5, 4])
def test_chosen_draws_leave_the_rows_asked_for(rows):
    labels = torch.arange(200) % 50
    draws = chosen_draws(labels, 4, rows, 50)
    left = [len(set(mine.tolist()) - {int(label)}) for mine, label in zip(draws, labels, strict=True)]
    assert sum(left) / len(left) == pytest.approx(rows, abs=0.01) and max(left) - min(left) <= 1
    assert draws.min() >= 0 and draws.max() < 50


def test_times_are_taken_in_turn():
    calls = []
    taken = seconds({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, CPU, warmup=1)
    assert calls == ["a", "b"] * 4 and [len(taken[name]) for name in "ab"] == [3, 3]
    assert ratio([2.0, 9.0, 4.0], [1.0, 3.0, 2.0]) == 2.0


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_runs_forward_and_backward(name):
    work = Bench(SMALL, CPU)
    gradients = []
    work.student.zero_grad = lambda set_to_none=True: gradients.extend(p.grad for p in work.student.parameters())
    loss = work.step(name)()
    assert loss > 0 and all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_forms_give_the_same_loss():
    work = Bench(SMALL.with_changes(rows=4.0), CPU)
    losses = [work.step(name)().item() for name in ("algorithm1", "prefix", "prefix_merged")]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    packed = Bench(SMALL.with_changes(rows=4.0), CPU, packing=True).step("prefix")().item()
    assert packed == pytest.approx(losses[0], rel=1e-5)


def test_costs_have_the_promised_order():
    cost = {name: flops(name) for name in METHODS}
    assert cost["vanilla_kd"] < cost["prefix_merged"] < cost["prefix"] < cost["algorithm1"]
    assert cost["vanilla_kd"] < cost["kd_iva"] < cost["align_ti"]
    assert cost["gkd"] > cost["vanilla_kd"]


def test_the_cost_of_draws_is_linear_and_the_prefix_is_paid_once():
    base = flops("prefix", d=1)
    one = flops("prefix", d=2) - base
    assert flops("prefix", d=4) - base == pytest.approx(3 * one, rel=0.08)  # a row's attention sees its block's rows
    assert flops("prefix", d=8) - base == pytest.approx(7 * one, rel=0.08)
    assert one < 0.5 * flops("vanilla_kd")


def test_packing_saves_the_padding():
    assert flops("vanilla_kd", packing=True) < 0.95 * flops("vanilla_kd")


def test_iva_costs_little_outside_the_heads():
    work = Bench(SMALL, CPU)
    outside = {}
    for name in ("vanilla_kd", "kd_iva"):
        with flop_counter() as counter:
            work.objectives[name].counter = counter
            work.step(name)()
        outside[name] = counter.get_total_flops() - work.objectives[name].head_flops
    assert 1 < outside["kd_iva"] / outside["vanilla_kd"] < 1.03


def test_drawn_rows_save_the_heads_of_the_others():
    longer = {"prompt": 170, "visual": 150}
    more = flops("align_ti", **longer) - flops("align_ti_128", **longer)
    one = 2 * SMALL.student.vocabulary * (SMALL.teacher.hidden + 3 * SMALL.student.hidden)  # it is the smaller one
    assert more == len(SMALL.responses) * (150 - 128) * one


def test_what_is_not_computed_is_counted_alike():
    counted = entry.count_only(SMALL, list(METHODS))["methods"]
    work = Bench(SMALL, CPU)
    for name in METHODS:
        assert counted[name].items() >= entry.count(work, name).items()


def test_the_command_that_only_counts(tmp_path, capsys, monkeypatch):
    """A teacher of 3 GB, of which nothing is there."""
    wide = SMALL.with_changes(teacher=Decoder(8192, 1, 8, 8, 24576, 160), prompt=12, visual=6, instruction=3)
    monkeypatch.setitem(PRESETS, "paper", wide)
    flags = ["--preset", "paper", "--count_only", "--batch_size", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bench", *flags, "--methods", "vanilla_kd", "align_ti"])
    entry.main()
    report = json.loads((tmp_path / "bench.json").read_text())
    assert report["parameters"]["teacher"] > 8e8
    assert report["methods"]["align_ti"]["flops_ratio"] > 1 == report["methods"]["vanilla_kd"]["flops_ratio"]
    assert "| align_ti | " in (tmp_path / "bench.md").read_text() and " MiB" not in capsys.readouterr().out


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(PRESETS, "miniature", SMALL)
    log = {"log_history": [{"candidate_rows": 0.5}, {"loss": 1.0}, {"candidate_rows": 1.5}]}
    (tmp_path / "trainer_state.json").write_text(json.dumps(log))
    out = tmp_path / "deep"
    flags = ["--preset", "miniature", "--device", "cpu", "--rows_from", str(tmp_path), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["bench", *flags, "--methods", "vanilla_kd", "align_ti"])
    entry.main()
    shown = capsys.readouterr().out
    assert "candidate_rows_per_step: 1.0" in shown and "align_ti" in shown
    report = json.loads((out / "bench.json").read_text())
    assert report["methods"]["vanilla_kd"]["flops_ratio"] == 1.0 == report["methods"]["vanilla_kd"]["time_ratio"]
    assert report["methods"]["align_ti"]["flops_ratio"] > 1 and report["tokens_per_step"] == SMALL.tokens
    assert {"command", "commit", "machine", "time"} <= set(report)
    page = (out / "bench.md").read_text()
    assert "| vanilla_kd | 1.00 | 1.00 | 1.00 | 1.00 | " in page and "d: 4" in page and "- commit: " in page


@pytest.mark.timeout(300)
def test_counting_first_does_not_keep_the_losses_from_being_compiled(compiler):
    """Under a dispatch mode, as the FLOP counter is one, torch.compile skips a function for good."""
    torch._dynamo.reset()
    counters["stats"].clear()
    entry.bench(replace(SMALL, rounds=1), CPU, ["vanilla_kd"], compile_losses=True)
    assert counters["stats"]["unique_graphs"] > 0


def test_chunked_heads_take_a_fraction_of_the_memory(monkeypatch):
    monkeypatch.setattr(chunks, "CPU_CHUNK_BYTES", 2**20)
    used = head_memory(CPU, rows=600, vocabulary=6_000, student_hidden=64, teacher_hidden=96)
    assert used["ratio"] < 0.25 and used["plain"] * 2**20 > 4 * 600 * 6_000 * 4


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--rows", "5"], "5.0 candidate rows per step; expected 0 to d = 4"),
        (["--methods", "align_ti"], "needs vanilla_kd"),
        (["--rows_from", "nowhere"], "nowhere/trainer_state.json is not the log"),
    ],
)
def test_wrong_settings(flags, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench", "--preset", "miniature", *flags])
    with pytest.raises(InputError, match=message):
        entry.main()
