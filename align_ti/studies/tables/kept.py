"""Tables from the records in the repository, on a machine without the students: ``--report-only`` in a fresh clone.

Only the records are used: the models, data and questions that they name are compared between records, not with files.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from align_ti.studies.common.provenance import REPOSITORY
from align_ti.studies.tables.recipe import EVALUATION, MODELS, made_by
from align_ti.studies.tables.record import Record, read_records
from align_ti.studies.tables.setting import Setting
from align_ti.studies.tables.trial import Trial
from llava.errors import InputError
from llava.eval.registry import BENCHMARKS
from llava.eval.table import Row
from llava.files import read_json

KEPT_RECORDS = REPOSITORY / "docs" / "results" / "trials.jsonl"
"""The records in the repository."""

TEACHER = "teacher_path"
CONTENT = (*MODELS, "data_path", *EVALUATION)
"""Recipe entries that identify files by their content; the files themselves need not exist here."""

Students = Mapping[tuple[str, int], Record]
"""Records by run and seed that are comparable with each other."""


@dataclass(frozen=True)
class Kept:
    """The kept records of a table.

    Attributes:
        trials: Its trials, each with its record if there is one.
        teachers: The teachers' scores, if the table itself was kept too.
        note: A remark for the report on what was not compared.
    """

    trials: list[Trial]
    teachers: list[Row]
    note: str


def nothing_here(trials: Sequence[Trial]) -> bool:
    """Whether none of a table's students exists here, finished or started."""
    return not any(trial.model.exists() or trial.recipe() is not None for trial in trials)


def read_kept(table: str, trials: Sequence[Trial], files: Sequence[Path], setting: Setting) -> Kept:
    """The kept records of a table's trials, from the first file with a seed that all rows have.

    A record is used if its settings match the current settings of its row. Models, data and questions may differ from
    those on this machine, but must be the same for all records. If there are matching records for several models, those
    of the table that is kept next to them (``TABLE.json``) are used.

    Args:
        table: Name of the table.
        trials: The table's trials, whose folders are empty.
        files: Files of records; missing files are skipped.
        setting: Settings that the students share.

    Raises:
        InputError: No file has a common seed of all rows, or the choice between several sets of records is ambiguous.
    """
    for file in files:
        records = read_records(file)
        rows = _without_unknown_layers(trials, {record.run for record in records})
        whole = [students for students in _groups(rows, records, setting) if _has_a_seed(rows, students)]
        if whole:
            return _one_of(whole, table, rows, file)
    raise InputError(
        f"there are no students of {table} here, and no record file ({', '.join(map(_shown, files))}) has a common "
        "seed of all its rows with this pair's settings; train them (without --report-only), or pass another file "
        "with --records"
    )


def _one_of(whole: Sequence[Students], table: str, trials: Sequence[Trial], file: Path) -> Kept:
    """Choose one of several sets of students in a file."""
    report = _report_beside(table, file)
    meant = whole if len(whole) == 1 else [students for students in whole if _is_made_of(report, students)]
    if len(meant) != 1:
        raise InputError(
            f"{_shown(file)} has students of {table} with several teachers, first stages, data or questions, and no "
            f"{table}.json next to it was made from one of these sets; pass a file with one set with --records"
        )
    students = meant[0]
    teachers = report["teachers"] if _is_made_of(report, students) else {}
    return Kept(
        [replace(trial, kept=students.get((trial.name, trial.seed))) for trial in trials],
        [Row(name, scores) for name, scores in teachers.items()],
        f"not compared: records of {_shown(file)} are tabulated as they are, without comparing them with the "
        "models, data and processor of this machine",
    )


def _without_unknown_layers(trials: Sequence[Trial], known: set[str]) -> list[Trial]:
    """Drop rows of layers without a record: without the teacher, it is unknown which depths are the same layer."""
    return [trial for trial in trials if trial.name in known or not any(word.endswith("%") for word in trial.run.flags)]


def _groups(trials: Sequence[Trial], records: Sequence[Record], setting: Setting) -> Iterator[Students]:
    """Comparable students: with the same first stage, data and questions, and the same teacher unless their row has its
    own. If a run and seed has several records, the last one counts."""
    settings = {trial.name: _settings(made_by(setting.recipe(trial.run))) for trial in trials}
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
    """The table kept next to its records; empty if there is none."""
    report = file.with_name(f"{table}.json")
    if not report.is_file():
        return {}
    return dict(read_json(report, "remove it"))


def _is_made_of(report: Mapping[str, Any], students: Students) -> bool:
    """Whether a table has the scores of the given students."""
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
