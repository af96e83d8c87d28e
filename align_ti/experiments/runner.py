"""Train and evaluate the students of a table, one for each seed; what is finished is not done again."""

import json
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from align_ti.experiments.catalogue import Run
from align_ti.facts import REPOSITORY
from llava.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """One student: a run with a seed, in a folder of its own."""

    name: str
    run: Run
    seed: int
    folder: Path

    @property
    def scores_file(self) -> Path:
        """Written last: a trial that has it is finished."""
        return self.folder / "eval" / "scores.json"

    @property
    def seconds_file(self) -> Path:
        """Seconds of training (of its last part, where it was interrupted) and evaluation."""
        return self.folder / "seconds.json"


def plan_trials(runs: Mapping[str, Run], seeds: Sequence[int], root: Path) -> list[Trial]:
    """Seed by seed, so that a table stopped early has whole rows."""
    return [Trial(name, run, seed, root / name / f"seed{seed}") for seed in seeds for name, run in runs.items()]


def run_trials(trials: Sequence[Trial], flags: Sequence[str] = ()) -> None:
    """Do what is left of the trials, with a bar that says how long that will take.

    Args:
        trials: of :func:`plan_trials`.
        flags: added to every training command.

    Raises:
        InputError: a command failed; the message has the end of its log.
    """
    for trial in trials:
        check_teacher(trial)
    left = [trial for trial in trials if not trial.scores_file.is_file()]
    logger.info("%d students, %d of them finished before", len(trials), len(trials) - len(left))
    with tqdm(left, unit="student", smoothing=0) as bar:
        for trial in bar:
            bar.set_description(f"{trial.name}, seed {trial.seed}")
            run_trial(trial, flags)


def check_teacher(trial: Trial) -> None:
    """Refuse a teacher that is not there, and a student that was trained under another one of the same name.

    Raises:
        InputError: one of these.
    """
    teacher = trial.run.teacher
    if not teacher:
        return
    if not Path(teacher).exists() and len(Path(teacher).parts) > 2:  # a hub's name has two parts
        raise InputError(f"the teacher {teacher} of {trial.name!r} is not there; train it with scripts/teacher/ first")
    config = trial.folder / "model" / "run_config.json"
    trained_under = json.loads(config.read_text())["distill"]["teacher_path"] if config.is_file() else teacher
    if trained_under != teacher:
        raise InputError(
            f"{trial.folder} was trained under {trained_under}, not {teacher}; remove it, or name the teacher otherwise"
        )


def run_trial(trial: Trial, flags: Sequence[str] = ()) -> None:
    """Train and evaluate one student. A training that was interrupted goes on from its last checkpoint."""
    trial.folder.mkdir(parents=True, exist_ok=True)
    model = trial.folder / "model"
    started = time.monotonic()
    if not (model / "trainer_state.json").is_file():
        script = ["bash", str(REPOSITORY / "scripts" / "distill" / f"{trial.run.script}.sh")]
        own = ["--output_dir", str(model.resolve()), "--seed", str(trial.seed), "--run_name", trial.name]
        teacher = {"TEACHER": trial.run.teacher} if trial.run.teacher else {}
        _call([*script, *trial.run.flags, *own, "--resume", "auto", *flags], trial.folder / "train.log", **teacher)
        for checkpoint in model.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    trained = time.monotonic()
    evaluate = ["bash", str(REPOSITORY / "scripts" / "eval" / "all.sh"), str(model.resolve())]
    _call(evaluate, trial.folder / "eval.log", OUTPUT_DIR=str((trial.folder / "eval").resolve()))
    seconds = {"train": round(trained - started, 1), "evaluate": round(time.monotonic() - trained, 1)}
    trial.seconds_file.write_text(json.dumps(seconds) + "\n")


def _call(command: Sequence[str], log: Path, **environment: str) -> None:
    with open(log, "w", encoding="utf-8") as file:
        done = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=REPOSITORY, env={**os.environ, **environment}
        )
    if done.returncode:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise InputError(f"{' '.join(command)} ended with status {done.returncode}; the end of {log}:\n{tail}")
