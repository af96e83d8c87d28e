"""What a benchmark is, and how its files are found and read."""

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.inference.question import Question

SHORT_ANSWER = "Answer the question using a single word or phrase."
"""The suffix that LLaVA's question files already contain."""

LETTER_ANSWER = "Answer with the option's letter from the given choices directly."
"""The suffix of multiple-choice questions, added when they are loaded."""

Row = dict[str, Any]


class MissingFile(InputError):
    """A file of a benchmark was not found."""


def how_to_get(root: Path) -> str:
    """What to run when something is missing in an evaluation root, for error messages."""
    command = f"python -m llava.prepare benchmarks --root {shlex.quote(str(root))}"
    return (
        f"`{command}` lists what is missing and where to get it; with --download it downloads questions and annotations"
    )


@dataclass(frozen=True)
class Score:
    """Score of one benchmark.

    Attributes:
        value: The figure in the table, 0 to 100.
        metrics: Further figures, for the benchmark's JSON file.
    """

    value: float
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: where its files are, how it is asked and how it is scored.

    Attributes:
        name: Name on the command line and in file names.
        column: Heading in the table.
        folders: Possible names of its folder in the evaluation root; the first that exists is used.
        questions: Possible names of its question file in that folder; the first that exists is used.
        load: Reads questions and expected answers, given the folder and the question file.
        score: A pure function of the questions and, in the same order, the answers (None for a missing one).
        max_new_tokens: Maximum length of an answer in tokens.
        conv_mode: Prompt template, overriding the one chosen for the run.
        write_submission: Writes the file for an evaluation server into a folder; returns where it is, or why it was
            not written.
        get: How to get its files, where ``llava.prepare`` does not.
    """

    name: str
    column: str
    folders: tuple[str, ...]
    questions: tuple[str, ...]
    load: Callable[[Path, Path], list[Question]]
    score: Callable[[Sequence[Question], Sequence[str | None]], Score]
    max_new_tokens: int = 128
    conv_mode: str | None = None
    write_submission: Callable[[Sequence[Question], Sequence[str | None], Path], str] | None = None
    get: str = ""

    def find(self, root: Path) -> tuple[Path, Path]:
        """The benchmark's folder and question file in ``root``.

        Raises:
            MissingFile: One of them does not exist; the message lists the paths that were tried.
        """
        folder = first_existing(root, self.folders, f"folder of {self.column}")
        return folder, first_existing(folder, self.questions, f"question file of {self.column}")


def first_existing(folder: Path, names: Sequence[str], what: str) -> Path:
    """The first of ``names`` that exists in ``folder``; a name may be a path.

    Raises:
        MissingFile: None of them exists.
    """
    for name in names:
        if (folder / name).exists():
            return folder / name
    looked = " or ".join(str(folder / name) for name in names)
    raise MissingFile(f"{what} not found: expected {looked}")


def picture_folder(folder: Path, names: Sequence[str]) -> Path:
    """The first of ``names`` that exists in ``folder``, else the first.

    The images may be absent, since scoring does not need them; ``Task.check_pictures`` looks for them before a model is
    loaded.
    """
    return next((folder / name for name in names if (folder / name).exists()), folder / names[0])


def read_jsonl(path: Path, required: Sequence[str] = ()) -> list[Row]:
    """Objects of a JSON-lines file, each with the ``required`` keys.

    Raises:
        InputError: The file is empty or not UTF-8, or a line is malformed; the message names the line and what was
            expected.
    """
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number}: not valid JSON ({error})") from None
        missing = [key for key in required if not isinstance(row, dict) or key not in row]
        if missing:
            raise InputError(
                f"{path}, line {number}: expected an object with {', '.join(required)}, missing "
                f"{missing[0]!r}; is this the right question file?"
            )
        rows.append(row)
    if not rows:
        raise InputError(f"{path} is empty")
    return rows


def percent(part: float, whole: float) -> float:
    """``100 * part / whole``, or 0 if ``whole`` is 0."""
    return 100.0 * part / whole if whole else 0.0


def accuracies(hits: dict[str, list[bool]]) -> dict[str, dict[str, float]]:
    """Accuracy in percent and number of questions for each name, sorted by name."""
    return {name: {"accuracy": percent(sum(h), len(h)), "count": len(h)} for name, h in sorted(hits.items())}
