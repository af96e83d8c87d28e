"""Intervals against textbook values; tables that say what is there and refuse what is not."""

import json
import math
import shutil
import threading
from dataclasses import replace

import pytest

from align_ti.experiments.__main__ import read_teacher
from align_ti.experiments.catalogue import RUNS, TABLES, find_runs, find_table, with_teachers
from align_ti.experiments.record import Record, keep
from align_ti.experiments.report import draw, read_lines, write_report
from align_ti.experiments.runner import (
    Trial,
    check_recipe,
    check_teacher,
    plan_trials,
    recipe,
    run_trials,
    take_kept,
)
from align_ti.experiments.statistics import estimate, paired_difference
from llava.errors import InputError
from llava.eval.registry import BENCHMARKS
from llava.eval.table import Row


def finish(trial: Trial, score: float, held_out: float | None = None, seconds: float | None = 60.0) -> None:
    """Leave behind what a finished trial does: every benchmark has the same score."""
    trial.folder.mkdir(parents=True)
    took = {"evaluate": 5.0} | ({} if seconds is None else {"train": seconds})
    scores = dict.fromkeys(BENCHMARKS, score)
    record = Record(trial.name, trial.seed, recipe(trial), scores, held_out, took, "abc1234")
    trial.record_file.write_text(record.text())


def test_interval_of_one_to_five():
    """Mean 3, standard deviation 1.5811, t(0.975, 4) = 2.7764: half-width 2.7764 * 1.5811 / sqrt(5)."""
    found = estimate([1, 2, 3, 4, 5])
    assert found.mean == 3 and found.half_width == pytest.approx(1.9633, abs=1e-4)
    assert found.text() == "3.0 ± 2.0" and found.text(3) == "3.000 ± 1.963"
    assert estimate([-0.04]).text() == "0.0"
    assert math.isnan(estimate([7.0]).half_width) and estimate([7.0]).text() == "7.0"


def test_what_seeds_share_cancels():
    """Two runs that differ by 1 on every seed, however far the seeds are apart."""
    assert paired_difference([11, 51, 91], [10, 50, 90]).half_width == 0
    with pytest.raises(ValueError, match="argument 2"):
        paired_difference([1, 2], [1])


def test_every_table_names_runs_that_exist():
    for table in TABLES.values():
        assert table.baseline in table.runs and set(table.runs) <= set(RUNS)
        assert all(name in table.runs for _, points in table.lines for name in points.values())
    assert len(find_table("table14").runs) == 15
    flags = [(run.script, run.flags, run.data_share) for run in RUNS.values()]
    assert len(set(flags)) == len(flags), "two names for one run"
    with pytest.raises(InputError, match="no table 'table99'; there are: table3"):
        find_table("table99")
    with pytest.raises(InputError, match="no run 'x'"):
        find_runs(["sft", "x"])


def test_rows_under_several_teachers():
    table, runs = with_teachers(find_table("table9"), {"small": "/s", "large": "/l"})
    assert table.runs == tuple(runs) and table.baseline == "sft+kd+iva+tpa@small"
    assert [run.teacher for run in runs.values()] == ["/s", "/l"]
    assert {run.flags for run in runs.values()} == {RUNS["sft+kd+iva+tpa"].flags}


def test_a_teacher_that_is_not_there_or_another_one(tmp_path):
    def trial(teacher):
        return plan_trials(with_teachers(find_table("table9"), {"small": teacher})[1], [0], tmp_path)[0]

    with pytest.raises(InputError, match="the teacher /no/such/teacher of 'sft.kd.iva.tpa@small' is not there"):
        check_teacher(trial("/no/such/teacher"))
    check_teacher(trial("hub/name"))
    check_teacher(trial(str(tmp_path)))


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A teacher and a first stage, known by their weights."""
    for name in ("teacher", "student-pretrain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text(name)
    monkeypatch.setenv("CHECKPOINTS", str(tmp_path))
    monkeypatch.setenv("TEACHER", str(tmp_path / "teacher"))
    monkeypatch.setenv("PRESET", "mini")
    return tmp_path


def test_a_student_made_otherwise_is_not_taken_for_finished(models, monkeypatch):
    """Other flags, another preset, a teacher or a first stage with other weights; where they lie does not matter."""
    trial = plan_trials(find_runs(["sft+kd"]), [0], models / "tables")[0]
    trial.folder.mkdir(parents=True)
    trial.recipe_file.write_text(json.dumps(recipe(trial, ["--x", "1"])))
    check_recipe(trial, ["--x", "2"])  # nothing was trained
    (trial.folder / "model").mkdir()
    check_recipe(trial, ["--x", "1"])
    with pytest.raises(InputError, match="its flags is '--x 1', now it would be '--x 2'; remove the folder"):
        check_recipe(trial, ["--x", "2"])
    (models / "teacher").rename(models / "moved")
    monkeypatch.setenv("TEACHER", str(models / "moved"))
    check_recipe(trial, ["--x", "1"])
    (models / "moved" / "model.safetensors").write_text("trained again")
    with pytest.raises(InputError, match="its teacher is 'weights"):
        check_recipe(trial, ["--x", "1"])
    other = replace(trial, run=replace(trial.run, data_share=50))
    with pytest.raises(InputError, match="its data_share is '100', now it would be '50'"):
        check_recipe(other, ["--x", "1"])


def test_a_finished_student_made_otherwise(models):
    trial = plan_trials(find_runs(["sft+kd"]), [0], models / "tables")[0]
    finish(trial, 5.0)
    check_recipe(trial)
    with pytest.raises(InputError, match="its flags is '', now it would be '--x 2'"):
        check_recipe(trial, ["--x", "2"])


def test_records_of_another_machine(models, tmp_path):
    """They stand in for students that would be made in the same way, the last of them, and for no others."""
    kept = tmp_path / "out" / "trials.jsonl"
    here = plan_trials(find_runs(["sft", "sft+kd"]), [0, 1], tmp_path / "here")
    for score, trial in enumerate([here[0], here[1], here[0]]):
        shutil.rmtree(trial.folder, ignore_errors=True)
        finish(trial, float(score), held_out=0.7)
        keep(kept, trial.record())
    there = plan_trials(find_runs(["sft", "sft+kd"]), [0, 1], tmp_path / "there")
    (there[1].folder / "model").mkdir(parents=True)  # one that is being trained goes on
    take_kept(there, [], kept)
    assert [trial.is_finished(with_held_out=True) for trial in there] == [True, False, False, False]
    assert there[0].record() == here[0].record() and there[0].record().scores["gqa"] == 2
    other = plan_trials(find_runs(["sft"]), [0], tmp_path / "other")
    take_kept(other, ["--x", "1"], kept)
    (models / "teacher" / "model.safetensors").write_text("trained again")
    take_kept(other, [], kept)
    assert other[0].record() is None
    take_kept(other, [], tmp_path / "none")
    kept.write_text(kept.read_text() + "{}\n")
    with pytest.raises(InputError, match="line 4 of .*trials.jsonl is not the record of a trial"):
        take_kept(other, [], kept)


def test_a_record_without_the_held_out_loss_is_not_finished_where_it_is_asked_for(tmp_path):
    trial = plan_trials(find_runs(["sft"]), [0], tmp_path)[0]
    assert not trial.is_finished(with_held_out=False)
    finish(trial, 5.0)
    assert trial.is_finished(with_held_out=False) and not trial.is_finished(with_held_out=True)


def test_times_of_what_was_interrupted(tmp_path):
    """A kill between the parts leaves a table that can still be written; a part without its time is left out."""
    table = find_table("table15")
    trials = plan_trials(find_runs(table.runs), (0,), tmp_path / "runs")
    for trial, seconds in zip(trials, (None, 120.0, 60.0), strict=True):
        finish(trial, 5.0, seconds=seconds)
    trials[1].took("train", 120.04)
    trials[1].took("evaluate", 5.0)
    assert trials[1].seconds() == {"train": 120.0, "evaluate": 5.0}
    text = write_report("table15", table, trials, tmp_path / "out", {})
    ends = [line.rsplit(" | ", 1)[1] for line in text.splitlines() if line.startswith("| ")][1:]
    assert ends == ["- |", "120 s |", "60 s |"]
    assert "3 min for 3 students, trained and evaluated (1 of them interrupted" in text


def test_two_at_a_time_and_none_after_a_failure(tmp_path, monkeypatch):
    """All are done once, two of them at the same time; after a failure those that have not begun are left."""
    trials = plan_trials(find_runs(["sft", "sft+kd"]), range(3), tmp_path)
    together, begun = threading.Barrier(2, timeout=20), []

    def meet(trial, *rest):
        begun.append(trial)
        together.wait()

    monkeypatch.setattr("align_ti.experiments.runner.run_trial", meet)
    run_trials(trials, jobs=2)
    assert sorted(begun, key=str) == sorted(trials, key=str)
    begun.clear()

    def fail(trial, *rest):
        begun.append(trial)
        raise InputError(f"{trial.name} failed")

    monkeypatch.setattr("align_ti.experiments.runner.run_trial", fail)
    with pytest.raises(InputError, match="sft.* failed"):
        run_trials(trials)
    assert len(begun) <= 3


def test_scores_of_a_teacher(tmp_path):
    for name in BENCHMARKS:
        (tmp_path / f"{name}.json").write_text(json.dumps({"score": 10.0}))
    assert read_teacher(tmp_path).average == 10
    (tmp_path / "pope.json").unlink()
    with pytest.raises(InputError, match="lacks the teacher's scores on pope; run"):
        read_teacher(tmp_path)


def test_table_of_two_seeds(tmp_path):
    table = find_table("table15")
    trials = plan_trials(find_runs(table.runs), (0, 1), tmp_path / "runs")
    for trial, score in zip(trials, (10, 20, 30, 14, 22, 36), strict=True):
        finish(trial, score)
    teacher = Row("Teacher", dict.fromkeys(BENCHMARKS, 50.0) | {"pope": 80.0})
    text = write_report("table15", table, trials, tmp_path / "out", {"command": "x"}, teacher)
    above, *rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    assert above[0] == "| Teacher" and above[7] == "55.0" and above.count("80.0") == 1
    assert [row[7] for row in rows] == ["12.0 ± 25.4", "21.0 ± 12.7", "33.0 ± 38.1"]
    assert [row[8] for row in rows] == ["baseline", "9.0 ± 12.7", "21.0 ± 12.7"]
    assert "Seeds 0, 1" in text and "- command: x" in text
    content = json.loads((tmp_path / "out" / "table15.json").read_text())
    assert [row["average"] for row in content["rows"]] == [[10, 14], [20, 22], [30, 36]]
    assert (tmp_path / "out" / "table15.png").stat().st_size > 5000
    assert (tmp_path / "out" / "table15.pdf").read_bytes().startswith(b"%PDF")


def test_held_out_loss_has_its_columns(tmp_path):
    """Seed by seed as well; a row without it says so."""
    table = find_table("table15")
    trials = plan_trials(find_runs(table.runs), (0, 1), tmp_path / "runs")
    for trial, loss in zip(trials, (0.71, 0.70, None, 0.73, 0.71, None), strict=True):
        finish(trial, 5.0, loss)
    text = write_report("table15", table, trials, tmp_path / "out", {}, Row("Teacher", dict.fromkeys(BENCHMARKS, 5.0)))
    above, *rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(above) == len(rows[0]) == 12
    assert [row[9] for row in rows] == ["0.7200 ± 0.1271", "0.7050 ± 0.0635", "-"]
    assert [row[10] for row in rows] == ["baseline", "-0.0150 ± 0.0635", "-"]
    assert "Held-out loss: cross-entropy in nats" in text
    lines, _ = read_lines(trials)
    assert len(draw(table, lines).axes) == 1, "not without all"
    for trial in trials[2::3]:
        trial.record_file.write_text(replace(trial.record(), held_out=0.69).text())
    left, right = draw(table, read_lines(trials)[0]).axes
    (dots,) = right.containers
    assert dots.lines[0].get_xdata().tolist() == pytest.approx([0, -0.015, -0.03])
    assert left.yaxis_inverted() and [label.get_text() for label in left.get_yticklabels()][0] == "SFT"


def test_only_seeds_that_all_runs_have(tmp_path):
    table = find_table("table15")
    trials = plan_trials(find_runs(table.runs), (0, 1, 2), tmp_path)
    with pytest.raises(InputError, match="no seed has been finished.*sft/seed0/record.json is missing"):
        read_lines(trials)
    for trial in trials:
        if trial.seed == 2 or trial.name != "sft":
            finish(trial, 5.0)
    assert read_lines(trials)[1] == [2]


def test_shares_of_the_data_and_a_longer_baseline():
    assert RUNS["sft+kd-150%"] == replace(
        RUNS["sft+kd"], label="Vanilla KD (forward KL), 150 % of the data", data_share=150
    )
    for label, points in find_table("figure8").lines:
        assert all(RUNS[name].data_share == share for share, name in points.items()), label


def test_a_figure_has_a_line_for_each_sampling(tmp_path):
    table = find_table("figure5")
    trials = plan_trials(find_runs(table.runs), (0,), tmp_path)
    for number, trial in enumerate(trials):
        finish(trial, float(number))
    text = write_report("figure5", table, trials, tmp_path, {})
    assert "TPA, greedy, d = 8" in text and "not to be had from one seed" in text
    assert (tmp_path / "figure5.png").stat().st_size > 5000
