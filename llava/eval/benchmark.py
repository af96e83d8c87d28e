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
"""The suffix that LLaVA's question files carry already."""

LETTER_ANSWER = "Answer with the option's letter from the given choices directly."
"""The suffix of multiple-choice questions, added while they are loaded."""

Row = dict[str, Any]


class MissingFile(InputError):
    """A file of a benchmark is not where it is looked for."""


def how_to_get(root: Path) -> str:
    """What to run when something is missing below an evaluation root, for error messages."""
    command = f"python -m llava.prepare benchmarks --root {shlex.quote(str(root))}"
    return (
        f"`{command}` lists what is missing and where to get it; with --download it downloads questions and annotations"
    )


@dataclass(frozen=True)
class Score:
    """``value`` goes into the table (0 to 100); ``metrics`` into the benchmark's JSON."""

    value: float
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: where it lies, how it is asked and how it is scored.

    Attributes:
        name: On the command line and in file names.
        column: Heading in the table.
        folders: Its folder below the evaluation root; the first that exists is taken.
        questions: Its question file in that folder, likewise.
        load: Reads questions and expected answers, given the folder and the question file.
        score: A pure function of the questions and, in the same order, the answers (None for a missing one).
        max_new_tokens: Limit of an answer.
        conv_mode: Prompt template instead of the one chosen for the run.
        write_submission: Writes what an evaluation server wants into a folder, and says where or why not.
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

    def find(self, root: Path) -> tuple[Path, Path]:
        """The benchmark's folder and question file below ``root``.

        Raises:
            MissingFile: One of them is not there; the message lists what was looked for.
        """
        folder = first_existing(root, self.folders, f"folder of {self.column}")
        return folder, first_existing(folder, self.questions, f"question file of {self.column}")


def first_existing(folder: Path, names: Sequence[str], what: str) -> Path:
    """The first of ``names`` that exists in ``folder``; a name may be a path.

    Raises:
        MissingFile: None exists.
    """
    for name in names:
        if (folder / name).exists():
            return folder / name
    looked = " or ".join(str(folder / name) for name in names)
    raise MissingFile(f"{what} not found: expected {looked}")


def picture_folder(folder: Path, names: Sequence[str]) -> Path:
    """The first of ``names`` that exists in ``folder``, else the first; scoring needs no pictures, so that they may be
    absent (``Task.check_pictures`` looks for them before a model is asked)."""
    return next((folder / name for name in names if (folder / name).exists()), folder / names[0])


def read_jsonl(path: Path, required: Sequence[str] = ()) -> list[Row]:
    """Objects of a JSON-lines file, each with the ``required`` keys.

    Raises:
        InputError: A malformed line; the message names it and what was expected.
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
    """``100 * part / whole``, and 0 for an empty whole."""
    return 100.0 * part / whole if whole else 0.0


def accuracies(hits: dict[str, list[bool]]) -> dict[str, dict[str, float]]:
    """Accuracy in percent and number of questions for each name, sorted by name."""
    return {name: {"accuracy": percent(sum(h), len(h)), "count": len(h)} for name, h in sorted(hits.items())}
