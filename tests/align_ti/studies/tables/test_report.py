"""Intervals against textbook values; tables that say what is there and refuse what is not."""

import json
import math
from dataclasses import replace

import pytest

from align_ti.studies.common.intervals import estimate, find_outliers, paired_difference
from align_ti.studies.tables.__main__ import read_teacher
from align_ti.studies.tables.catalogue import find_table, rows_of
from align_ti.studies.tables.figure import draw
from align_ti.studies.tables.report import write_report
from align_ti.studies.tables.rows import read_lines
from align_ti.studies.tables.trial import plan_trials
from llava.errors import InputError
from llava.eval.registry import BENCHMARKS
from llava.eval.table import Row


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


def test_times_of_what_was_interrupted(tmp_path, finish):
    """A kill between the parts leaves a table that can still be written; a part without its time is left out."""
    table = find_table("table15")
    trials = plan_trials(rows_of(table), (0,), tmp_path / "runs")
    for trial, seconds in zip(trials, (None, 120.0, 60.0), strict=True):
        finish(trial, 5.0, seconds=seconds)
    trials[1].took("train", 120.04)
    trials[1].took("evaluate", 5.0)
    assert trials[1].seconds() == {"train": 120.0, "evaluate": 5.0}
    text = write_report("table15", table, trials, tmp_path / "out", {})
    ends = [row[-1] for row in read_tables(text)[0]]
    assert ends == ["- |", "120 s |", "60 s |"]
    assert "3 min for 3 students, training and evaluation, summed (1 of them interrupted" in text


def test_scores_of_a_teacher(tmp_path):
    for name in BENCHMARKS:
        (tmp_path / f"{name}.json").write_text(json.dumps({"score": 10.0}))
    assert read_teacher("Teacher", tmp_path).average == 10
    (tmp_path / "pope.json").unlink()
    with pytest.raises(InputError, match="has no scores of 'small' on pope; run"):
        read_teacher("small", tmp_path)


def read_tables(text: str) -> list[list[list[str]]]:
    """The cells of a page's tables, without their headings."""
    tables = [part.splitlines()[2:] for part in text.split("\n\n") if part.startswith("| ")]
    return [[line.split(" | ") for line in table] for table in tables]


def test_table_of_two_seeds(tmp_path, finish):
    table = find_table("table15")
    trials = plan_trials(rows_of(table), (0, 1), tmp_path / "runs")
    for trial, score in zip(trials, (10, 20, 30, 14, 22, 36), strict=True):
        finish(trial, score)
    teacher = Row("Teacher", dict.fromkeys(BENCHMARKS, 50.0) | {"pope": 80.0})
    text = write_report("table15", table, trials, tmp_path / "out", {"command": "x"}, [teacher])
    (above, *rows), against = read_tables(text)
    assert above[0] == "| Teacher" and above[7] == "55.0" and above.count("80.0") == 1
    assert [row[7] for row in rows] == ["12.0 ± 25.4", "21.0 ± 12.7", "33.0 ± 38.1"]
    assert [row[8] for row in rows] == ["baseline", "9.0 ± 12.7", "21.0 ± 12.7"]
    assert [row[0] for row in against] == ["| Vanilla KD (forward KL)", "| Align-TI"]
    assert against[0][1:7] == ["9.0 ± 12.7"] * 6 and against[1][7] == "21.0 ± 12.7 |"
    assert "Seeds 0, 1" in text and "- command: x" in text and "Relative to SFT, by benchmark:" in text
    content = json.loads((tmp_path / "out" / "table15.json").read_text())
    assert content["teachers"] == {"Teacher": teacher.scores}
    assert [row["average"] for row in content["rows"]] == [[10, 14], [20, 22], [30, 36]]
    assert (tmp_path / "out" / "table15.png").stat().st_size > 5000
    assert (tmp_path / "out" / "table15.pdf").read_bytes().startswith(b"%PDF")


def test_held_out_loss_has_its_columns(tmp_path, finish):
    """Seed by seed as well; a row without it says so."""
    table = find_table("table15")
    trials = plan_trials(rows_of(table), (0, 1), tmp_path / "runs")
    for trial, loss in zip(trials, (0.71, 0.70, None, 0.73, 0.71, None), strict=True):
        finish(trial, 5.0, loss)
    teachers = [Row("Teacher", dict.fromkeys(BENCHMARKS, 5.0))]
    text = write_report("table15", table, trials, tmp_path / "out", {}, teachers)
    (above, *rows), _ = read_tables(text)
    assert len(above) == len(rows[0]) == 12
    assert [row[9] for row in rows] == ["0.7200 ± 0.1271", "0.7050 ± 0.0635", "-"]
    assert [row[10] for row in rows] == ["baseline", "-0.0150 ± 0.0635", "-"]
    assert "Held-out loss: cross-entropy in nats" in text
    lines, _ = read_lines(trials)
    assert len(draw(table, lines).axes) == 1, "not without all"
    for trial in trials[2::3]:
        trial.record_file.write_text(replace(trial.record(), held_out=0.69).text())
    left, right = draw(table, read_lines(trials)[0]).axes
    assert positions(right) == pytest.approx({0: 0, 1: -0.015, 2: -0.03})
    assert left.yaxis_inverted() and [label.get_text() for label in left.get_yticklabels()][0] == "SFT"


def test_rows_far_away_are_arrows(tmp_path, finish):
    """Two of seven rows do not squeeze the others into one dot; two of three are no exception but the result."""
    table = find_table("table3")
    trials = plan_trials(rows_of(table), (0, 1), tmp_path / "runs")
    for number, trial in enumerate(trials):
        row, seed = number % 7, number // 7
        finish(trial, {0: 5.0, 6: 95.0}.get(row, 48 + row / 10) + seed)
    (axes,) = draw(table, read_lines(trials)[0]).axes
    assert positions(axes) == pytest.approx({row: 48.5 + row / 10 for row in range(1, 6)})
    assert 30 < axes.get_xlim()[0] < 48 and 49 < axes.get_xlim()[1] < 70
    below, above = axes.texts
    assert (below.get_text(), above.get_text()) == ("5.5 ± 6.4", "95.5 ± 6.4")
    assert (below.xy, above.xy) == ((0.01, 0), (0.99, 6)), "at the edge on their side, in their row"


def test_outliers():
    assert find_outliers([1.0, 1.1, 0.9, 1.0, 1.2, -4.0, 9.0]) == [5, 6]
    assert find_outliers([1.0, 1.1, 0.9, 1.0, 1.2, 1.5, 2.0]) == []
    assert find_outliers([1.0, 1.1, 50.0]) == [], "one of three"
    assert find_outliers([1.0, 1.0, 1.0, 1.0, 9.0]) == [], "most are equal"


def positions(axes) -> dict[float, float]:
    """Row -> position of its dot."""
    return {bar.lines[0].get_ydata()[0]: bar.lines[0].get_xdata()[0] for bar in axes.containers}


def test_only_seeds_that_all_runs_have(tmp_path, finish):
    table = find_table("table15")
    trials = plan_trials(rows_of(table), (0, 1, 2), tmp_path)
    with pytest.raises(InputError, match="no seed has been finished.*sft/seed0/record.json is missing"):
        read_lines(trials)
    for trial in trials:
        if trial.seed == 2 or trial.name != "sft":
            finish(trial, 5.0)
    assert read_lines(trials)[1] == [2]


def test_a_figure_has_a_line_for_each_sampling(tmp_path, finish):
    table = find_table("figure5")
    trials = plan_trials(rows_of(table), (0,), tmp_path / "runs")
    for number, trial in enumerate(trials):
        finish(trial, float(number), held_out=1 - number / 100)
    text = write_report("figure5", table, trials, tmp_path, {})
    assert "TPA, greedy, d = 8" in text and "not available with one seed" in text
    assert text.count("| greedy - nucleus | 4.0 | 4.0 | 4.0 | 4.0 |") == 1, "scores 0 to 3 and 4 to 7"
    assert text.count("| greedy - nucleus | -0.0400 | -0.0400 | -0.0400 | -0.0400 |") == 1
    assert (tmp_path / "figure5.png").stat().st_size > 5000


def test_a_figure_without_held_out_losses(tmp_path, finish):
    table = find_table("figure5")
    trials = plan_trials(rows_of(table), (0,), tmp_path / "runs")
    for trial in trials:
        finish(trial, 5.0)
    text = write_report("figure5", table, trials, tmp_path, {})
    assert text.count("| greedy - nucleus |") == 1 and "held-out" not in text
