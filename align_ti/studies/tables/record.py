"""Records of finished trials, one line of JSON each, in one small file.

With this file, a table can be continued on another machine, if the teacher and the student's first stage are
bit-identical, and the students can be deleted.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from llava.errors import InputError

MOVED = {"align_ti.train": "align_ti.training.train"}
"""Former module names found in older records."""


@dataclass(frozen=True)
class Record:
    """One finished trial.

    Attributes:
        run, seed: Name in the catalogue, and random seed.
        recipe: How the student was trained; see :func:`align_ti.studies.tables.recipe.recipe`.
        scores: Scores by benchmark.
        held_out: Cross-entropy on held-out conversations in nats per token; None if it was not measured.
        seconds: Duration by part, ``train`` and ``evaluate``; an interrupted training run is left out.
        commit: Commit at which the student was trained.
    """

    run: str
    seed: int
    recipe: Mapping[str, str]
    scores: Mapping[str, float]
    held_out: float | None
    seconds: Mapping[str, float]
    commit: str

    def text(self) -> str:
        """The record as a line of JSON."""
        return json.dumps(asdict(self)) + "\n"


def read_record(text: str, where: str) -> Record:
    """The inverse of :meth:`Record.text`.

    Raises:
        InputError: The text is not a record; the message begins with ``where``.
    """
    try:
        record = Record(**json.loads(text))
        return replace(record, recipe=current(record.recipe))
    except (ValueError, TypeError) as error:
        raise InputError(f"{where} is not a trial record: {error}; remove it") from error


def current(recipe: Mapping[str, str]) -> dict[str, str]:
    """A recipe with the current name of its module."""
    return {**recipe, **({"module": MOVED[recipe["module"]]} if recipe.get("module") in MOVED else {})}


def read_records(file: Path) -> list[Record]:
    """All records of a file, in the order they were added; none if the file does not exist.

    Raises:
        InputError: A line is not a record.
    """
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").splitlines()
    return [read_record(line, f"line {number} of {file}") for number, line in enumerate(lines, 1) if line.strip()]


def keep(file: Path, record: Record) -> None:
    """Append a record to a file in a single write, so that several trials may finish at the same time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, record.text().encode())
    finally:
        os.close(handle)
