"""The results of a table's trials: JSON, Markdown and a figure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from align_ti.studies.common.intervals import estimate
from align_ti.studies.common.report import markdown_page, markdown_table
from align_ti.studies.common.report import write_report as write_files
from align_ti.studies.tables.catalogue import Table
from align_ti.studies.tables.figure import draw
from align_ti.studies.tables.record import Record
from align_ti.studies.tables.rows import Line, find_baseline, read_lines
from align_ti.studies.tables.trial import Trial
from llava.eval.registry import BENCHMARKS
from llava.eval.table import Row


def write_report(
    name: str,
    table: Table,
    trials: Sequence[Trial],
    folder: Path,
    facts: Mapping[str, Any],
    teachers: Sequence[Row] = (),
) -> str:
    """Write ``NAME.json``, ``NAME.md``, ``NAME.png`` and ``NAME.pdf``.

    Args:
        name: Name of the table.
        table: Definition of the table.
        trials: Trials, with records in their folders.
        folder: Output folder.
        facts: Provenance of the results: command, commit, machine.
        teachers: Scores of the teachers, shown above the students'.

    Returns:
        The Markdown.
    """
    lines, seeds = read_lines(trials)
    baseline = find_baseline(lines, table)
    rows = [_row(line, baseline) for line in lines]
    head: dict[str, Any] = {"table": name, "title": table.title, "seeds": seeds, "baseline": table.baseline}
    head["teachers"] = {teacher.name: dict(teacher.scores) for teacher in teachers}
    shown = [record for trial in trials if trial.seed in seeds and (record := trial.record())]
    commits = sorted({record.commit for record in shown})
    facts = {**facts, "time": _time_taken(shown), "students trained at": ", ".join(commits)}
    content = {**head, **facts, "rows": rows}
    text = as_markdown(table, lines, seeds, facts, teachers)
    write_files(folder, name, content, text, draw(table, lines))
    return text


def _time_taken(records: Sequence[Record]) -> str:
    minutes = sum(sum(record.seconds.values()) for record in records) / 60
    unknown = sum("train" not in record.seconds for record in records)
    return f"{minutes:.0f} min for {len(records)} students, training and evaluation, summed" + (
        f" ({unknown} of them interrupted, their training not counted)" if unknown else ""
    )


def _row(line: Line, baseline: Line) -> dict[str, Any]:
    """A row for JSON."""
    held_out = line.held_out_difference(baseline)
    return {
        **asdict(line),
        "average": line.averages,
        "mean": asdict(estimate(line.averages)),
        "difference": asdict(line.difference(baseline)),
        "differences": {name: asdict(difference) for name, difference in line.differences(baseline).items()},
        "held_out_difference": held_out and asdict(held_out),
    }


def as_markdown(
    table: Table,
    lines: Sequence[Line],
    seeds: Sequence[int],
    facts: Mapping[str, Any],
    teachers: Sequence[Row] = (),
) -> str:
    """The table with means, intervals and differences, followed by its provenance."""
    baseline = find_baseline(lines, table)
    read = any(line.held_out for line in lines)
    headings = ["", *(benchmark.column for benchmark in BENCHMARKS.values()), "Avg", "against the baseline"]
    headings += [*(["held-out loss", "against the baseline"] if read else []), "training"]
    rows = []
    for teacher in teachers:
        cells = teacher.cells()
        rows.append([*cells, *[""] * (len(headings) - len(cells))])
    for line in lines:
        cells = [line.label, *(f"{estimate(values).mean:.1f}" for values in line.scores.values())]
        cells += [estimate(line.averages).text()]
        cells += ["baseline" if line is baseline else line.difference(baseline).text()]
        if read:
            cells += [estimate(line.held_out).text(4) if line.held_out else "-"]
            cells += ["baseline" if line is baseline else _loss_difference(line, baseline)]
        rows.append([*cells, "-" if line.seconds is None else f"{line.seconds:.0f} s"])
    interval = "the 95% interval of the mean over seeds (Student's t); differences are paired by seed."
    if len(seeds) == 1:
        interval = "not available with one seed."
    shared = "teacher and first stage are"
    if table.teachers:
        shared = "one teacher of each size, whose seed variance the intervals do not include, and one first stage are"
    notes = [
        f"The paper: {table.paper}",
        f"Seeds {', '.join(map(str, seeds))} of the second stage ({shared} shared); ± is {interval} Training: mean "
        "over seeds, measured alongside whatever else was running.",
    ]
    if read:
        notes.append(
            "Held-out loss: cross-entropy in nats per token on conversations about images that no student was trained "
            "on "
            "(teacher forcing, `llava.eval.held_out`)."
        )
    parts = [markdown_table(headings, rows), *notes]
    if len(lines) > 1:
        parts += [f"Relative to {baseline.label}, by benchmark:", _differences(lines, baseline)]
    if table.lines:
        parts += [f"Between the lines of the figure, by {table.axis}:", _between(table, lines)]
    return markdown_page(table.title, parts, facts)


def _differences(lines: Sequence[Line], baseline: Line) -> str:
    """A table of the differences between each other row and the baseline, by benchmark."""
    headings = ["", *(benchmark.column for benchmark in BENCHMARKS.values()), "Avg"]
    rows = [
        [line.label, *(value.text() for value in line.differences(baseline).values()), line.difference(baseline).text()]
        for line in lines
        if line is not baseline
    ]
    return markdown_table(headings, rows)


def _between(table: Table, lines: Sequence[Line]) -> str:
    """Tables of the differences between the lines of a figure at every point of its axis: in the averages and, where
    measured, in held-out losses."""
    named = {line.name: line for line in lines}
    pairs = [
        (f"{name} - {other}", [(named[run], named[others[place]]) for place, run in points.items()])
        for number, (name, points) in enumerate(table.lines)
        for other, others in table.lines[:number]
    ]
    places = [f"{place:g}" for place in table.lines[0][1]]
    averages = [[label, *(line.difference(other).text() for line, other in pair)] for label, pair in pairs]
    tables = [markdown_table(["Avg", *places], averages)]
    if any(line.held_out for line in lines):
        losses = [[label, *(_loss_difference(line, other) for line, other in pair)] for label, pair in pairs]
        tables.append(markdown_table(["held-out loss", *places], losses))
    return "\n\n".join(tables)


def _loss_difference(line: Line, other: Line) -> str:
    """The difference between two rows' held-out losses; "-" if one of them was not measured."""
    difference = line.held_out_difference(other)
    return difference.text(4) if difference else "-"
