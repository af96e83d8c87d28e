"""Train and evaluate the students of a table, one per row and seed; finished parts are not repeated."""

import logging
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from align_ti.studies.tables.commands import Commands, Ended, only_here
from align_ti.studies.tables.recipe import check_recipes, check_teacher, differences, recipe
from align_ti.studies.tables.record import Record, keep, read_records
from align_ti.studies.tables.setting import Setting
from align_ti.studies.tables.trial import MADE_AGAIN, Trial
from llava.eval.table import SCORES_FILE, read_rows
from llava.files import read_json, write_json, write_text

logger = logging.getLogger(__name__)

ALIGN_TI = (sys.executable, "-m", "align_ti.cli")


@dataclass(frozen=True)
class Work:
    """The work on every trial.

    Attributes:
        setting: Settings that the students share.
        held_out: Conversations and the folder of their images, for the cross-entropy.
        kept: File to which the record of each trial is appended.
        known: Further files of records, which count like those in ``kept``.
        commands: Runs the commands of a trial.
    """

    setting: Setting = field(default_factory=Setting)
    held_out: tuple[Path, Path] | None = None
    kept: Path | None = None
    known: Sequence[Path] = ()
    commands: Commands = field(default_factory=Commands)

    @property
    def held_out_data(self) -> Path | None:
        """The conversations for the cross-entropy, if it is measured."""
        return self.held_out[0] if self.held_out else None

    @property
    def evaluation(self) -> list[str]:
        """Flags of the evaluation."""
        places = self.setting.places
        flags = ["--eval-root", str(self.setting.eval_root), "--batch-size", places.text("eval_batch_size")]
        mode = places.text("eval_conv_mode")
        return [*flags, "--conv-mode", mode] if mode else flags

    def recipe(self, trial: Trial) -> dict[str, str]:
        """The recipe with which a student would be trained now."""
        return recipe(trial, self.setting, self.held_out_data)

    def check(self, trials: Sequence[Trial]) -> None:
        """Reject folders with students trained with different settings, and missing teachers.

        Raises:
            InputError: There is such a folder, or a teacher is missing.
        """
        for trial in trials:
            check_teacher(trial)
        check_recipes(trials, self.setting, self.held_out_data)


def run_trials(trials: Sequence[Trial], work: Work, jobs: int = 1) -> None:
    """Run the unfinished trials, with a progress bar.

    Ctrl-C or SIGTERM stops the running commands; trainings save a checkpoint and resume from it next time.

    Args:
        trials: Trials of :func:`align_ti.studies.tables.trial.plan_trials`.
        work: The work on each trial.
        jobs: Number of trials that run at the same time.

    Raises:
        InputError: A command failed; the message has the end of its log.
    """
    work.check(trials)
    left = [trial for trial in trials if not trial.is_finished(with_held_out=work.held_out is not None)]
    logger.info("%d students, %d of them already finished", len(trials), len(trials) - len(left))
    failed = threading.Event()

    def do(trial: Trial) -> None:
        if failed.is_set():
            raise Ended
        try:
            run_trial(trial, work)
        except Exception:
            failed.set()
            raise

    with (
        logging_redirect_tqdm(),
        tqdm(total=len(left), unit="student", smoothing=0, disable=None) as bar,
        _signals_as_exits(),
        ThreadPoolExecutor(jobs) as pool,
        _ending(work.commands),
    ):
        running = {pool.submit(do, trial): trial for trial in left}
        errors: list[BaseException] = []
        for done in as_completed(running):
            error = done.exception()
            if error is None:
                bar.update()
                logger.info("finished %s", running[done])
            elif not isinstance(error, Ended):
                logger.error("%s: failed; running students are finished, no further one is started", running[done])
                errors.append(error)
        if errors:
            raise errors[0]


@contextmanager
def _signals_as_exits() -> Iterator[None]:
    """Make the signals of schedulers leave this block like Ctrl-C."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGUSR1)}
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        for number, handler in {**before, signal.SIGINT: interrupt}.items():
            signal.signal(number, handler)


@contextmanager
def _ending(commands: Commands) -> Iterator[None]:
    """Stop all commands if this block is left by Ctrl-C or a signal; further signals are ignored."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        logger.info("stopping; trainings save a checkpoint first, from which the same command resumes")
        commands.end()
        raise SystemExit(error.code if isinstance(error, SystemExit) else 130) from None


def take_kept(trials: Sequence[Trial], work: Work) -> None:
    """Use kept records for trials with empty folders, if the students would be trained with the same recipe.

    Args:
        trials: As for :func:`run_trials`.
        work: Its ``known`` and ``kept`` are the files of records; the last record of a trial counts.
    """
    known: dict[tuple[str, int], list[Record]] = {}
    for file in dict.fromkeys([*work.known, *([work.kept] if work.kept else [])]):
        for record in read_records(file):
            known.setdefault((record.run, record.seed), []).append(record)
    for trial in trials:
        if (trial.name, trial.seed) not in known or trial.record_file.is_file() or trial.model.exists():
            continue
        wanted = work.recipe(trial)
        same = [record for record in known[trial.name, trial.seed] if not differences(record.recipe, wanted)]
        if same:
            trial.folder.mkdir(parents=True, exist_ok=True)
            write_text(trial.record_file, same[-1].text())


def run_trial(trial: Trial, work: Work) -> None:
    """Train and evaluate one student, without repeating finished parts; see :func:`run_trials`.

    An interrupted training resumes from its last checkpoint.
    """
    with only_here(trial.folder, work.commands) as held:
        work.check([trial])  # another table may have used this folder since
        if trial.is_finished(with_held_out=work.held_out is not None):  # by another table in the meantime
            return
        _train(trial, work, held)
        if not (trial.scores_folder / SCORES_FILE).is_file():
            started = time.monotonic()
            evaluate = [*ALIGN_TI, "eval", "all", str(trial.model.resolve())]
            evaluate += ["--output-dir", str(trial.scores_folder.resolve()), *work.evaluation]
            work.commands.run(evaluate, trial.folder / "eval.log", {}, held)
            trial.took("evaluate", time.monotonic() - started)
        if work.held_out is not None and not trial.held_out_file.is_file():
            data, images = map(str, work.held_out)
            read = [sys.executable, "-m", "llava.eval.held_out", "--model-path", str(trial.model.resolve())]
            read += ["--data", data, "--image-folder", images, "--out", str(trial.held_out_file.resolve())]
            read += ["--batch-size", work.setting.places.text("eval_batch_size")]
            work.commands.run(read, trial.folder / "held_out.log", {}, held)
        record = collect(trial)
        if work.kept is not None:
            keep(work.kept, record)
        write_text(trial.record_file, record.text())


def _train(trial: Trial, work: Work, held: int) -> None:
    wanted = work.recipe(trial)
    if not trial.is_trained:
        fresh, started = not trial.model.exists(), time.monotonic()
        for stale in (trial.record_file, trial.held_out_file, trial.seconds_file):
            stale.unlink(missing_ok=True)
        shutil.rmtree(trial.scores_folder, ignore_errors=True)
        write_json(trial.recipe_file, wanted)
        own = ["--output_dir", str(trial.model.resolve()), "--seed", str(trial.seed), "--run_name", trial.name]
        command = [*ALIGN_TI, *work.setting.command(trial.run, [*own, "--resume", "auto"])]
        work.commands.run(command, trial.folder / "train.log", {}, held)
        if fresh:
            trial.took("train", time.monotonic() - started)
    elif work.held_out is not None:  # it may not have been measured before
        write_json(trial.recipe_file, wanted)
    for checkpoint in trial.model.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def collect(trial: Trial) -> Record:
    """The record of a finished trial.

    Raises:
        InputError: One of its files is damaged.
    """
    read = trial.held_out_file
    return Record(
        run=trial.name,
        seed=trial.seed,
        recipe=read_json(trial.recipe_file, MADE_AGAIN),
        scores=read_rows(str(trial.scores_folder))[0].scores,
        held_out=read_json(read, MADE_AGAIN)["cross_entropy"] if read.is_file() else None,
        seconds=trial.seconds(),
        commit=str(read_json(trial.model / "run_config.json")["commit"]),
    )
