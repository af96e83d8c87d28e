"""Train, evaluate and tabulate the students of one of the paper's tables.

    python -m align_ti.studies.tables TABLE --folder DIR --out DIR [--seeds 5]

Run through ``scripts/tables/TABLE.sh``, which sets what the training scripts need. After an interruption, the same
command continues where it stopped.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedConfig

from align_ti.studies.common.checkpoints import parse_named
from align_ti.studies.common.provenance import run_facts
from align_ti.studies.tables.catalogue import TABLES, Table, find_table, rows_of, with_layers, with_teachers
from align_ti.studies.tables.kept import KEPT_RECORDS, nothing_here, read_kept
from align_ti.studies.tables.recipe import check_flags
from align_ti.studies.tables.report import write_report
from align_ti.studies.tables.runner import Work, run_trials, take_kept
from align_ti.studies.tables.trial import Trial, plan_trials
from llava.errors import InputError, run_cli
from llava.eval.registry import BENCHMARKS
from llava.eval.table import Row, read_rows

logger = logging.getLogger(__name__)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("table", help=", ".join(TABLES))
    parser.add_argument("--seeds", type=int, default=5, help="students per row, with seeds 0, 1, 2, ...")
    parser.add_argument("--folder", type=Path, required=True, help="folder of the students; shared by all tables")
    parser.add_argument("--out", type=Path, required=True, help="output folder of the results")
    parser.add_argument("--teachers", nargs="+", metavar="NAME=CHECKPOINT", help="teachers that table9 compares")
    parser.add_argument(
        "--teacher-scores",
        nargs="+",
        default=[],
        metavar="NAME=FOLDER",
        help="evaluation folder of the teachers (scripts/eval/all.sh), shown at the top",
    )
    parser.add_argument(
        "--held-out", type=Path, help="held-out conversations for the cross-entropy, in LLaVA's JSON format"
    )
    parser.add_argument("--held-out-images", type=Path, help="folder that their image paths are relative to")
    parser.add_argument("--jobs", type=int, default=1, help="number of students to train at a time")
    parser.add_argument(
        "--records",
        type=Path,
        help="file of trial records, from this or another machine; default: OUT/trials.jsonl and "
        "docs/results/trials.jsonl",
    )
    parser.add_argument(
        "--report-only",
        action="store_true",
        help="train nothing: tabulate the finished students, or the kept records if there are no students here",
    )
    arguments, flags = parser.parse_known_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.seeds < 1:
        raise InputError(f"--seeds is {arguments.seeds}; at least one student per row is needed")
    if arguments.jobs < 1:
        raise InputError(f"--jobs is {arguments.jobs}; it must be at least 1")
    table = find_table(arguments.table)
    if table.teachers:
        if not arguments.teachers:
            raise InputError(f"{arguments.table} compares teachers; name them: --teachers NAME=CHECKPOINT ...")
        named = parse_named(arguments.teachers, "--teachers")
        table, runs = with_teachers(table, named, own=os.environ.get("TEACHER", ""))
    else:
        runs = rows_of(table)
    check_flags(runs.values(), flags)
    trials = plan_trials(runs, range(arguments.seeds), arguments.folder)
    said = facts(flags)
    if arguments.report_only and nothing_here(trials):
        kept = read_kept(arguments.table, trials, record_files(arguments), flags)
        trials, teachers = kept.trials, kept.teachers
        said = {**said, "machine": f"tabulated on {said['machine']}", "models and data": kept.note}
    else:
        if any(word.endswith("%") for run in runs.values() for word in run.flags):
            table, runs = with_layers(table, runs, layers_of(os.environ["TEACHER"]))
            trials = plan_trials(runs, range(arguments.seeds), arguments.folder)
        teachers = read_teachers(arguments, table)
        finish(trials, arguments, flags)
    sys.stdout.write(write_report(arguments.table, table, trials, arguments.out, said, teachers))
    logger.info("written: %s.*", arguments.out / arguments.table)


def record_files(arguments: argparse.Namespace) -> list[Path]:
    """Files of trial records; new records are added to the first."""
    return [arguments.records] if arguments.records else [arguments.out / "trials.jsonl", KEPT_RECORDS]


def finish(trials: Sequence[Trial], arguments: argparse.Namespace, flags: Sequence[str]) -> None:
    """Train and evaluate the remaining trials of a table; with ``--report-only`` only check the existing ones.

    Raises:
        InputError: Students here were trained with different settings, or a command failed.
    """
    added_to, *known = record_files(arguments)
    work = Work(flags, held_out(arguments.held_out, arguments.held_out_images), added_to, known)
    take_kept(trials, work)
    if arguments.report_only:
        work.check(trials)
    else:
        run_trials(trials, work, arguments.jobs)


def read_teachers(arguments: argparse.Namespace, table: Table) -> list[Row]:
    """Scores of the evaluated teachers.

    Raises:
        InputError: The table shows its teacher, which was not evaluated, or not on all benchmarks.
    """
    evaluated = parse_named(arguments.teacher_scores, "--teacher-scores")
    called = "{} teacher" if table.teachers else "{}"
    teachers = [read_teacher(called.format(name), Path(folder)) for name, folder in evaluated.items()]
    if table.beside_teacher and not teachers:
        raise InputError(
            f"{arguments.table} shows the teacher as well, and its scores were not found; evaluate it first: "
            "bash scripts/eval/all.sh TEACHER"
        )
    return teachers


def layers_of(model: str) -> int:
    """Number of layers of a checkpoint's language model.

    Raises:
        InputError: There is no such checkpoint.
    """
    try:
        config, _ = PreTrainedConfig.get_config_dict(model)
    except OSError as error:
        raise InputError(f"the teacher {model} cannot be read: {error}; set TEACHER, or train it first") from error
    return int(config["num_hidden_layers"])


def held_out(data: Path | None, images: Path | None) -> tuple[Path, Path] | None:
    """The held-out conversations and the folder of their images, if there are any.

    Raises:
        InputError: The file does not exist.
    """
    if data is None:
        return None
    if not data.is_file():
        raise InputError(f"the held-out data {data} does not exist; set HELD_OUT_DATA to a file, or leave it empty")
    return data.resolve(), (images or data.parent).resolve()


def read_teacher(name: str, folder: Path) -> Row:
    """A teacher's scores on all benchmarks.

    Raises:
        InputError: Scores are missing.
    """
    row = Row(name, read_rows(str(folder))[0].scores)
    if row.average is None:
        missing = ", ".join(name for name in BENCHMARKS if name not in row.scores)
        raise InputError(f"{folder} lacks the scores of {name!r} on {missing}; run scripts/eval/all.sh on that teacher")
    return row


def facts(flags: list[str]) -> dict[str, str]:
    """Provenance of the results: command, commit, machine, preset."""
    return {
        **run_facts("align_ti.studies.tables"),
        "preset": os.environ.get("PRESET", "not set"),
        **({"flags": " ".join(flags)} if flags else {}),
    }


if __name__ == "__main__":
    run_cli(main)
