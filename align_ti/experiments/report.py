"""What came out of a table's trials: JSON, Markdown and a picture."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from align_ti.analysis.report import markdown_page, markdown_table
from align_ti.analysis.report import write_report as write_files
from align_ti.experiments.catalogue import Table
from align_ti.experiments.runner import Trial
from align_ti.experiments.statistics import Estimate, estimate, paired_difference
from llava.errors import InputError
from llava.eval.registry import BENCHMARKS
from llava.eval.table import Row, read_rows


@dataclass(frozen=True)
class Line:
    """One row of a table: the scores of a run by benchmark, one for each seed."""

    name: str
    label: str
    scores: Mapping[str, list[float]]
    seconds: float

    @property
    def averages(self) -> list[float]:
        """The mean of the six benchmarks by seed."""
        return [sum(of_seed) / len(of_seed) for of_seed in zip(*self.scores.values(), strict=True)]


def read_lines(trials: Sequence[Trial]) -> tuple[list[Line], list[int]]:
    """The rows of the seeds that all runs have finished, and these seeds.

    Raises:
        InputError: no seed is finished by all.
    """
    names = list(dict.fromkeys(trial.name for trial in trials))
    finished = {(trial.name, trial.seed): trial for trial in trials if trial.scores_file.is_file()}
    seeds = [
        seed for seed in sorted({trial.seed for trial in trials}) if all((name, seed) in finished for name in names)
    ]
    if not seeds:
        missing = next(trial for trial in trials if not trial.scores_file.is_file())
        raise InputError(f"no seed has been finished by all runs: {missing.scores_file} is missing")
    lines = []
    for name in names:
        mine = [finished[name, seed] for seed in seeds]
        rows = [read_rows(str(trial.folder / "eval"))[0] for trial in mine]
        scores = {benchmark: [row.scores[benchmark] for row in rows] for benchmark in BENCHMARKS}
        seconds = [json.loads(trial.seconds_file.read_text())["train"] for trial in mine]
        lines.append(Line(name, mine[0].run.label, scores, sum(seconds) / len(seconds)))
    return lines, seeds


def write_report(
    name: str,
    table: Table,
    trials: Sequence[Trial],
    folder: Path,
    facts: Mapping[str, Any],
    teacher: Row | None = None,
) -> str:
    """Write ``NAME.json``, ``NAME.md``, ``NAME.png`` and ``NAME.pdf``.

    Args:
        name: of the table.
        table: its rows.
        trials: with results in their folders.
        folder: where the files go.
        facts: said beside the results: command, commit, machine.
        teacher: the teacher's scores, shown above the students'.

    Returns:
        The Markdown.
    """
    lines, seeds = read_lines(trials)
    rows = [
        {
            **asdict(line),
            "average": line.averages,
            "mean": asdict(estimate(line.averages)),
            "difference": asdict(_difference(line, lines, table)),
        }
        for line in lines
    ]
    head: dict[str, Any] = {"table": name, "title": table.title, "seeds": seeds, "baseline": table.baseline}
    head["teacher"] = dict(teacher.scores) if teacher else None
    content = {**head, **facts, "rows": rows}
    text = as_markdown(table, lines, seeds, facts, teacher)
    write_files(folder, name, content, text, draw(table, lines))
    return text


def _difference(line: Line, lines: Sequence[Line], table: Table) -> Estimate:
    baseline = next(other for other in lines if other.name == table.baseline)
    return paired_difference(line.averages, baseline.averages)


def as_markdown(
    table: Table,
    lines: Sequence[Line],
    seeds: Sequence[int],
    facts: Mapping[str, Any],
    teacher: Row | None = None,
) -> str:
    """The table with means, intervals and differences, and below it how it was made."""
    headings = ["", *(benchmark.column for benchmark in BENCHMARKS.values()), "Avg", "against the baseline", "training"]
    rows = []
    if teacher:
        rows.append([*teacher.cells(), "", ""])
    for line in lines:
        cells = [f"{estimate(values).mean:.1f}" for values in line.scores.values()]
        other = "baseline" if line.name == table.baseline else f"{_difference(line, lines, table)}"
        rows.append([line.label, *cells, str(estimate(line.averages)), other, f"{line.seconds:.0f} s"])
    interval = "the 95 % interval of the mean over seeds (Student's t); differences are taken seed by seed."
    if len(seeds) == 1:
        interval = "not to be had from one seed."
    notes = [f"The paper: {table.paper}", f"Seeds {', '.join(map(str, seeds))}; ± is {interval}"]
    return markdown_page(table.title, [markdown_table(headings, rows), *notes], facts)


def draw(table: Table, lines: Sequence[Line]) -> Figure:
    """The averages with their intervals: one dot a row, or lines over the figure's axis."""
    figure = Figure(figsize=(7, 1.2 + 0.42 * len(lines)) if not table.lines else (6, 4), layout="constrained")
    axes = figure.add_subplot()
    estimates = {line.name: estimate(line.averages) for line in lines}
    widths = {name: 0.0 if math.isnan(value.half_width) else value.half_width for name, value in estimates.items()}
    if table.lines:
        for label, points in table.lines:
            names = list(points.values())
            means = [estimates[name].mean for name in names]
            axes.errorbar(list(points), means, [widths[name] for name in names], marker="o", capsize=3, label=label)
        axes.set(xlabel=table.axis, ylabel="mean of the six benchmarks", xticks=list(table.lines[0][1]))
        axes.legend()
    else:
        labels = [line.label for line in lines]
        means = [estimates[line.name].mean for line in lines]
        axes.errorbar(means, labels, xerr=[widths[line.name] for line in lines], fmt="o", capsize=3)
        axes.invert_yaxis()
        axes.set(xlabel="mean of the six benchmarks")
    axes.grid(alpha=0.3)
    axes.set_title(table.title)
    return figure
