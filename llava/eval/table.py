"""Print the paper's table from the scores of runs.

    python -m llava.eval.table RUN [NAME=RUN ...] [--published] [--format text|markdown|latex]

A RUN is an output folder of ``llava.eval.run``, a ``scores.json``, or a JSON file that maps model names to scores.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.errors import InputError, run_cli
from llava.eval.published import PUBLISHED
from llava.eval.registry import BENCHMARKS

SCORES_FILE = "scores.json"
COLUMNS = tuple(benchmark.column for benchmark in BENCHMARKS.values())
HEADINGS = ("Model", *COLUMNS, "Avg")


@dataclass(frozen=True)
class Row:
    """A model's scores by benchmark name, for the benchmarks it was evaluated on."""

    name: str
    scores: Mapping[str, float]

    @property
    def average(self) -> float | None:
        """The mean over the six benchmarks, or None if one is missing."""
        if any(name not in self.scores for name in BENCHMARKS):
            return None
        return sum(self.scores[name] for name in BENCHMARKS) / len(BENCHMARKS)

    def cells(self) -> list[str]:
        """The row's cells as text: one decimal, a dash for a missing score."""
        values = [*(self.scores.get(name) for name in BENCHMARKS), self.average]
        return [self.name, *("-" if value is None else f"{value:.1f}" for value in values)]


def read_rows(run: str) -> list[Row]:
    """Rows of one command-line argument, ``PATH`` or ``NAME=PATH``.

    Raises:
        InputError: There are no scores, or the file has another format.
    """
    name, separator, rest = run.partition("=")
    path = Path(rest if separator else run)
    label = name if separator else path.name
    if path.is_dir():
        return [Row(label, _scores_of_folder(path))]
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected an output folder of llava.eval.run, or a JSON file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if isinstance(content, dict) and content and all(isinstance(value, dict) for value in content.values()):
        return [Row(model, _checked(scores, path)) for model, scores in content.items()]
    return [Row(path.parent.name if not separator else label, _checked(content, path))]


def _scores_of_folder(folder: Path) -> dict[str, float]:
    scores = {}
    for name in BENCHMARKS:
        path = folder / f"{name}.json"
        if path.is_file():
            scores[name] = float(json.loads(path.read_text(encoding="utf-8"))["score"])
    if not scores and (folder / SCORES_FILE).is_file():
        return _checked(json.loads((folder / SCORES_FILE).read_text(encoding="utf-8")), folder / SCORES_FILE)
    if not scores:
        raise InputError(f"{folder} contains no scores; run llava.eval.run with --output-dir {folder} first")
    return scores


def _checked(scores: object, path: Path) -> dict[str, float]:
    found = {
        name: float(value)
        for name, value in (scores.items() if isinstance(scores, dict) else ())
        if name in BENCHMARKS and isinstance(value, int | float)
    }
    if not found:
        raise InputError(f"{path}: expected scores by benchmark ({', '.join(BENCHMARKS)}), found none")
    return found


def as_text(rows: Sequence[Row]) -> str:
    """The table as plain text with aligned columns."""
    table = [list(HEADINGS), *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(HEADINGS))]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in table
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def as_markdown(rows: Sequence[Row]) -> str:
    """The table in Markdown."""
    lines = [list(HEADINGS), ["---", *["---:"] * (len(HEADINGS) - 1)]]
    lines += [[cell.replace("|", "\\|") for cell in row.cells()] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_latex(rows: Sequence[Row]) -> str:
    """The table as a LaTeX ``tabular`` with booktabs rules."""
    lines = [" & ".join(HEADINGS) + r" \\", r"\midrule"]
    lines += [" & ".join(_escape(cell) for cell in row.cells()) + r" \\" for row in rows]
    begin = r"\begin{tabular}{l" + "c" * (len(HEADINGS) - 1) + "}"
    return "\n".join([begin, r"\toprule", *lines, r"\bottomrule", r"\end{tabular}"])


def _escape(text: str) -> str:
    return "--" if text == "-" else "".join("\\" + c if c in "_&%#$" else c for c in text)


FORMATS = {"text": as_text, "markdown": as_markdown, "latex": as_latex}


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folder or JSON file; NAME=RUN gives it a name")
    parser.add_argument("--published", action="store_true", help="add the paper's rows")
    parser.add_argument("--format", choices=FORMATS, default="text")
    arguments = parser.parse_args(argv)
    rows = [row for run in arguments.runs for row in read_rows(run)]
    if arguments.published:
        rows += [Row(name, scores) for name, scores in PUBLISHED.items()]
    if not rows:
        raise InputError("nothing to print: name at least one run, or pass --published")
    print(FORMATS[arguments.format](rows))


if __name__ == "__main__":
    run_cli(main)
