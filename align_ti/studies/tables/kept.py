"""Records tabulated as they stand, on a machine that has none of their students: ``--report-only`` in a fresh clone.

Nothing of a machine is read but its code: what a record says of models, data and questions is compared with what the
others say, not with files.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from align_ti.studies.common.provenance import REPOSITORY
from align_ti.studies.tables.recipe import EVALUATION, MODELS, read_command, training_command
from align_ti.studies.tables.record import Record, read_records
from align_ti.studies.tables.trial import Trial
from llava.errors import InputError
from llava.eval.registry import BENCHMARKS
from llava.eval.table import Row

KEPT_RECORDS = REPOSITORY / "docs" / "results" / "trials.jsonl"
"""The records that come with the code."""

TEACHER = "teacher_path"
CONTENT = (*MODELS, "data_path", *EVALUATION)
"""What a recipe knows by its content, of files that need not be here."""

Students = Mapping[tuple[str, int], Record]
"""Records by run and seed, that can be compared with each other."""


@dataclass(frozen=True)
class Kept:
    """What was kept of a table.

    Attributes:
        trials: its trials, each with its record where there is one.
        teachers: the teachers' scores, where the table was kept as well.
        note: what was and was not compared, for the report.
    """

    trials: list[Trial]
    teachers: list[Row]
    note: str


def nothing_here(trials: Sequence[Trial]) -> bool:
    """Whether no student of a table is here, finished or begun."""
    return not any(trial.model.exists() or trial.recipe() is not None for trial in trials)


def read_kept(table: str, trials: Sequence[Trial], files: Sequence[Path], flags: Sequence[str] = ()) -> Kept:
    """The kept records of a table's trials, from the first file that has a seed of all its rows.

    Records count whose settings are those that the rows have now, whatever models, data and questions they are of;
    but these have to be the same for all of them. Where records of several models are such, those count that the table
    kept beside them (``TABLE.json``) was made of.

    Args:
        table: Its name.
        trials: Of the table, with nothing in their folders.
        files: Files of records; one that is not there has none.
        flags: Added to the training commands.

    Raises:
        InputError: no file has a seed of all rows, or it cannot be told which of several records are meant.
    """
    for file in files:
        records = read_records(file)
        rows = _without_unknown_layers(trials, {record.run for record in records})
        whole = [students for students in _groups(rows, records, flags) if _has_a_seed(rows, students)]
        if whole:
            return _one_of(whole, table, rows, file)
    raise InputError(
        f"no student of {table} is here, and no file of records ({', '.join(map(_shown, files))}) has a seed of all "
        "its rows with this preset's settings; train them (without --report-only), or name another file with --records"
    )


def _one_of(whole: Sequence[Students], table: str, trials: Sequence[Trial], file: Path) -> Kept:
    """Those of a file's students that are meant."""
    report = _report_beside(table, file)
    meant = whole if len(whole) == 1 else [students for students in whole if _is_made_of(report, students)]
    if len(meant) != 1:
        raise InputError(
            f"{_shown(file)} has students of {table} under several teachers, first stages, data or questions, and no "
            f"{table}.json beside it was made of some of them; name a file with those of one alone with --records"
        )
    students = meant[0]
    teachers = report["teachers"] if _is_made_of(report, students) else {}
    return Kept(
        [replace(trial, kept=students.get((trial.name, trial.seed))) for trial in trials],
        [Row(name, scores) for name, scores in teachers.items()],
        f"not compared: records of {_shown(file)} are tabulated as they stand, whatever models, data and processor "
        "this machine has",
    )


def _without_unknown_layers(trials: Sequence[Trial], known: set[str]) -> list[Trial]:
    """Without rows of layers that no record is of: without the teacher it is not known which depths are one layer."""
    return [trial for trial in trials if trial.name in known or not any(word.endswith("%") for word in trial.run.flags)]


def _groups(trials: Sequence[Trial], records: Sequence[Record], flags: Sequence[str]) -> Iterator[Students]:
    """Students that can be compared: of the same first stage, data and questions, and under the same teacher but where
    their row has one of its own. The last record of a run and seed counts."""
    settings = {trial.name: _settings(read_command(training_command(trial.run, tuple(flags)))) for trial in trials}
    own_teacher = {trial.name for trial in trials if trial.run.teacher}
    found = [record for record in records if _settings(record.recipe) == settings.get(record.run)]
    taught = [record for record in found if record.run not in own_teacher and TEACHER in record.recipe]
    teachers = list(dict.fromkeys(record.recipe[TEACHER] for record in taught)) or [""]
    for shared in dict.fromkeys(_shared(record) for record in found):
        for teacher in teachers:
            yield {
                (record.run, record.seed): record
                for record in found
                if _shared(record) == shared
                and (record.run in own_teacher or record.recipe.get(TEACHER, teacher) == teacher)
            }


def _settings(recipe: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in recipe.items() if name not in CONTENT}


def _shared(record: Record) -> tuple[tuple[str, str], ...]:
    return tuple((name, record.recipe[name]) for name in CONTENT if name in record.recipe and name != TEACHER)


def _has_a_seed(trials: Sequence[Trial], students: Students) -> bool:
    names = {trial.name for trial in trials}
    return any(all((name, seed) in students for name in names) for seed in {trial.seed for trial in trials})


def _report_beside(table: str, file: Path) -> dict[str, Any]:
    """The table as it was kept beside its records; empty where it was not."""
    report = file.with_name(f"{table}.json")
    if not report.is_file():
        return {}
    try:
        return dict(json.loads(report.read_text(encoding="utf-8")))
    except ValueError as error:
        raise InputError(f"{report} is damaged: {error}; remove it") from error


def _is_made_of(report: Mapping[str, Any], students: Students) -> bool:
    """Whether a table's scores are those of some students."""
    wanted = {
        (row["name"], seed): {name: row["scores"][name][place] for name in BENCHMARKS}
        for row in report.get("rows", [])
        for place, seed in enumerate(report["seeds"])
    }
    return bool(wanted) and all(
        key in students and dict(students[key].scores) == scores for key, scores in wanted.items()
    )


def _shown(file: Path) -> str:
    return str(file.relative_to(REPOSITORY) if file.is_relative_to(REPOSITORY) else file)
