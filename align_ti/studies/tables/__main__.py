"""Train, evaluate and tabulate the students of one of the paper's tables.

    align-ti table table5 --pair mini                  on the miniature that scripts/demo.sh made
    align-ti table table5 --pair mini --seeds 1        one student per row
    align-ti table table5 --pair mini --report-only    tabulate finished students; if there are none here, the records
                                                       kept in docs/results
    align-ti table figure6 --pair mini                 measure finished models for a figure

Other flags are passed to every training (for a figure, to its program). Paths of a recipe can be given too: --runs,
--data_root, --data_path, --teacher_path, --held_out_data (conversations that no student trains on; adds a column of
cross-entropy). The students' first stage is read from --runs. Running the same command again resumes a stopped table.
"""

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedConfig

from align_ti.launch.machine import Machine
from align_ti.recipes.flags import take_option, take_switch
from align_ti.studies.common.checkpoints import parse_named
from align_ti.studies.common.evaluations import named_scores
from align_ti.studies.common.provenance import run_facts
from align_ti.studies.figures import FIGURES, measure
from align_ti.studies.tables.catalogue import TABLES, Table, find_table, rows_of, with_layers, with_teachers
from align_ti.studies.tables.kept import KEPT_RECORDS, nothing_here, read_kept
from align_ti.studies.tables.pairs import setting_of, teachers_of
from align_ti.studies.tables.recipe import check_flags
from align_ti.studies.tables.report import write_report
from align_ti.studies.tables.runner import Work, run_trials, take_kept
from align_ti.studies.tables.setting import Setting
from align_ti.studies.tables.trial import Trial, plan_trials
from llava.console import setup_console
from llava.cores import cores
from llava.errors import InputError, run_cli
from llava.eval.registry import BENCHMARKS
from llava.eval.table import Row, read_rows

logger = logging.getLogger(__name__)


def main() -> int:
    """Entry point."""
    arguments, flags = command_line().parse_known_args()
    setup_console(times=False)
    pair = arguments.pair or os.environ.get("PRESET") or None
    if arguments.table in FIGURES:
        return measure(arguments.table, pair, words_of_figure(sys.argv[1:]), arguments.print)
    if arguments.seeds < 1:
        raise InputError(f"--seeds is {arguments.seeds}; it must be at least 1")
    if arguments.jobs is not None and arguments.jobs < 1:
        raise InputError(f"--jobs is {arguments.jobs}; it must be at least 1")
    table = find_table(arguments.table)
    check_nodes(os.environ)
    setting = setting_of(arguments.table, pair, flags)
    arguments.folder = arguments.folder or setting.runs / "tables"
    arguments.out = arguments.out or setting.runs / "results"
    named = {"Teacher": setting.teacher}
    if table.teachers:
        named = parse_named(arguments.teachers or teachers_of(setting), "--teachers")
        table, runs = with_teachers(table, named, own=setting.teacher)
    else:
        runs = rows_of(table)
    if arguments.teacher_scores is None:
        arguments.teacher_scores = named_scores(named)
    check_flags(runs.values(), flags)
    trials = plan_trials(runs, range(arguments.seeds), arguments.folder)
    said = facts(setting, flags)
    if arguments.report_only and nothing_here(trials):
        kept = read_kept(arguments.table, trials, record_files(arguments), setting)
        trials, teachers = kept.trials, kept.teachers
        said = {**said, "machine": f"tabulated on {said['machine']}", "models and data": kept.note}
    else:
        if any(word.endswith("%") for run in runs.values() for word in run.flags):
            table, runs = with_layers(table, runs, layers_of(setting.teacher))
            trials = plan_trials(runs, range(arguments.seeds), arguments.folder)
        teachers = read_teachers(arguments, table)
        finish(trials, arguments, setting)
    sys.stdout.write(write_report(arguments.table, table, trials, arguments.out, said, teachers))
    logger.info("written: %s.*", arguments.out / arguments.table)
    return 0


def command_line() -> argparse.ArgumentParser:
    """The command-line parser of a table; other flags are passed to every training."""
    parser = argparse.ArgumentParser(
        prog="align-ti table", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("table", help=", ".join((*TABLES, *FIGURES)))
    parser.add_argument("--pair", help="pair of models, a file in scripts/recipes/pairs (default: $PRESET)")
    parser.add_argument("--print", action="store_true", help="for a figure: print the command that measures it")
    parser.add_argument("--seeds", type=int, default=5, help="students per row, with seeds 0, 1, 2, ...")
    parser.add_argument("--folder", type=Path, help="folder of the students, shared by tables (default: RUNS/tables)")
    parser.add_argument("--out", type=Path, help="output folder of the results (default: RUNS/results)")
    parser.add_argument("--teachers", nargs="+", metavar="NAME=CHECKPOINT", help="the teachers that table9 compares")
    parser.add_argument(
        "--teacher-scores",
        nargs="+",
        metavar="NAME=FOLDER",
        help="evaluations of the teachers (align-ti eval), shown on top (default: those next to the teachers)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        help="number of students trained at the same time (default: 1, or up to 2 for the miniature on a CPU)",
    )
    parser.add_argument(
        "--records",
        type=Path,
        help="file of trial records, from this or another machine (default: OUT/trials.jsonl and "
        "docs/results/trials.jsonl)",
    )
    parser.add_argument(
        "--report-only",
        action="store_true",
        help="train nothing: tabulate the finished students, or the kept records if there are no students here",
    )
    return parser


def words_of_figure(words: Sequence[str]) -> list[str]:
    """A command line without the figure's name, ``--pair NAME`` and ``--print``."""
    _, rest = take_option(words[1:], "--pair")
    return take_switch(rest, "--print")[1]


def check_nodes(environment: Mapping[str, str]) -> None:
    """Reject a launcher that needs the same command on every node, since a table is started once.

    Raises:
        InputError: The launcher is ``torchrun`` on several nodes.
    """
    if environment.get("LAUNCHER") == "torchrun" and (Machine.from_environment(environment).nodes > 1):
        raise InputError(
            "torchrun on several nodes needs the same command on each of them, but a table is started once; use "
            "LAUNCHER=deepspeed"
        )


def record_files(arguments: argparse.Namespace) -> list[Path]:
    """Files of trial records; new records are added to the first."""
    return [arguments.records] if arguments.records else [arguments.out / "trials.jsonl", KEPT_RECORDS]


def finish(trials: Sequence[Trial], arguments: argparse.Namespace, setting: Setting) -> None:
    """Train and evaluate a table's unfinished trials; with ``--report-only`` only check the existing ones.

    Raises:
        InputError: Students here were trained with different settings, or a command failed.
    """
    added_to, *known = record_files(arguments)
    data, images = (setting.places.text(name) for name in ("held_out_data", "held_out_images"))
    work = Work(setting, held_out(data, images), added_to, known)
    take_kept(trials, work)
    if arguments.report_only:
        work.check(trials)
    else:
        jobs = arguments.jobs or 1
        if setting.places.cpu_processes is not None and not Machine.from_environment(os.environ).gpus:
            jobs = arguments.jobs or min(2, cores())
            os.environ.setdefault("CPU_PROCESSES", "1")  # of each student
        run_trials(trials, work, jobs)


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
            f"{arguments.table} also shows the teacher, whose scores were not found; evaluate it first: "
            "align-ti eval all TEACHER"
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
        raise InputError(
            f"the teacher {model} cannot be read: {error}; give --teacher_path, or train it first"
        ) from error
    return int(config["num_hidden_layers"])


def held_out(data: str, images: str) -> tuple[Path, Path] | None:
    """The held-out conversations and the folder of their images, if there are any.

    Raises:
        InputError: The file does not exist.
    """
    if not data:
        return None
    file = Path(data)
    if not file.is_file():
        raise InputError(
            f"the held-out data {data} does not exist; pass --held_out_data FILE, or an empty value for none"
        )
    return file.resolve(), Path(images or file.parent).resolve()


def read_teacher(name: str, folder: Path) -> Row:
    """A teacher's scores on all benchmarks.

    Raises:
        InputError: Scores are missing.
    """
    row = Row(name, read_rows(str(folder))[0].scores)
    if row.average is None:
        missing = ", ".join(name for name in BENCHMARKS if name not in row.scores)
        raise InputError(f"{folder} has no scores of {name!r} on {missing}; run `align-ti eval all` on that teacher")
    return row


def facts(setting: Setting, flags: Sequence[str]) -> dict[str, str]:
    """How the results were made: command, commit, machine, pair."""
    return {
        **run_facts("align_ti.studies.tables"),
        "preset": setting.places.pair,
        **({"flags": " ".join(flags)} if flags else {}),
    }


if __name__ == "__main__":
    run_cli(main)
