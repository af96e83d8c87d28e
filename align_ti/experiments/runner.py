"""Train and evaluate the students of a table, one for each seed; what is finished is not done again."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tqdm import tqdm

from align_ti.experiments.catalogue import Run
from align_ti.experiments.record import Record, keep, read_record, read_records
from align_ti.facts import REPOSITORY
from llava.data.prepare.output import write_text
from llava.errors import InputError
from llava.eval.table import SCORES_FILE, read_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """One student: a run with a seed, in a folder of its own."""

    name: str
    run: Run
    seed: int
    folder: Path

    @property
    def record_file(self) -> Path:
        """Written last: a trial that has it is finished."""
        return self.folder / "record.json"

    @property
    def held_out_file(self) -> Path:
        """Of :mod:`llava.eval.held_out`."""
        return self.folder / "held_out.json"

    @property
    def seconds_file(self) -> Path:
        """How long its parts took; see :meth:`seconds`."""
        return self.folder / "seconds.json"

    @property
    def recipe_file(self) -> Path:
        """How the student is trained, written before that; see :func:`recipe`."""
        return self.folder / "recipe.json"

    def record(self) -> Record | None:
        """What came of it; None where it is not finished.

        Raises:
            InputError: its file is damaged.
        """
        file = self.record_file
        return read_record(file.read_text(encoding="utf-8"), str(file)) if file.is_file() else None

    def is_finished(self, with_held_out: bool) -> bool:
        """Whether nothing is left to do."""
        record = self.record()
        return record is not None and not (with_held_out and record.held_out is None)

    def seconds(self) -> dict[str, float]:
        """Seconds by part, ``train`` and ``evaluate``; a training that was interrupted is left out."""
        return json.loads(self.seconds_file.read_text()) if self.seconds_file.is_file() else {}

    def took(self, part: str, seconds: float) -> None:
        """Keep how long a part took."""
        self.seconds_file.write_text(json.dumps(self.seconds() | {part: round(seconds, 1)}) + "\n")


def plan_trials(runs: Mapping[str, Run], seeds: Sequence[int], root: Path) -> list[Trial]:
    """Seed by seed, so that a table stopped early has whole rows."""
    return [Trial(name, run, seed, root / name / f"seed{seed}") for seed in seeds for name, run in runs.items()]


def run_trials(
    trials: Sequence[Trial],
    flags: Sequence[str] = (),
    held_out: tuple[Path, Path] | None = None,
    jobs: int = 1,
    kept: Path | None = None,
) -> None:
    """Do what is left of the trials, with a bar that says how long that will take.

    Args:
        trials: of :func:`plan_trials`.
        flags: added to every training command.
        held_out: conversations and the folder of their pictures, for the cross-entropy.
        jobs: trials at a time.
        kept: file to which the record of each is added.

    Raises:
        InputError: a command failed; the message has the end of its log.
    """
    for trial in trials:
        check_teacher(trial)
        check_recipe(trial, flags)
    left = [trial for trial in trials if not trial.is_finished(with_held_out=held_out is not None)]
    logger.info("%d students, %d of them finished before", len(trials), len(trials) - len(left))
    with tqdm(total=len(left), unit="student", smoothing=0) as bar, ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(run_trial, trial, flags, held_out, kept): trial for trial in left}
        for done in as_completed(running):
            bar.set_description(f"{running[done].name}, seed {running[done].seed}, is done")
            bar.update()
            if done.exception():
                pool.shutdown(wait=False, cancel_futures=True)
                done.result()


def take_kept(trials: Sequence[Trial], flags: Sequence[str], kept: Path) -> None:
    """Take records that were kept for trials of which nothing is there, if these would be made in the same way.

    Args:
        trials, flags: as for :func:`run_trials`.
        kept: file of records; the last one of a trial counts.
    """
    known: dict[tuple[str, int], list[Record]] = {}
    for record in read_records(kept):
        known.setdefault((record.run, record.seed), []).append(record)
    for trial in trials:
        if (trial.name, trial.seed) not in known or trial.record_file.is_file() or (trial.folder / "model").exists():
            continue
        wanted = recipe(trial, flags)
        same = [record for record in known[trial.name, trial.seed] if record.recipe == wanted]
        if same:
            trial.folder.mkdir(parents=True, exist_ok=True)
            write_text(trial.record_file, same[-1].text())


def check_teacher(trial: Trial) -> None:
    """Refuse a teacher that is not there.

    Raises:
        InputError: it is not there.
    """
    teacher = trial.run.teacher
    if teacher and not Path(teacher).exists() and len(Path(teacher).parts) > 2:  # a hub's name has two parts
        raise InputError(f"the teacher {teacher} of {trial.name!r} is not there; train it with scripts/teacher/ first")


def recipe(trial: Trial, flags: Sequence[str] = ()) -> dict[str, str]:
    """What decides how a student is trained, so that another one is not taken for it.

    Returns:
        ``script``, ``flags``, ``data_share``, ``preset``, ``teacher`` and ``start`` (the student's first stage), the
        latter two known by their weights.
    """
    return {
        "script": trial.run.script,
        "flags": " ".join([*trial.run.flags, *flags]),
        "data_share": str(trial.run.data_share),
        "preset": os.environ.get("PRESET", ""),
        "teacher": weights(Path(trial.run.teacher or os.environ.get("TEACHER", ""))),
        "start": weights(Path(os.environ.get("CHECKPOINTS", "")) / "student-pretrain"),
    }


def weights(model: Path) -> str:
    """What a checkpoint is known by: a hash of its weights, wherever it lies; its path where there are none."""
    files = sorted([*model.glob("*.safetensors"), *model.glob("mm_projector.bin")])
    return _hash(tuple((file, file.stat().st_mtime_ns) for file in files)) if files else str(model)


@cache
def _hash(files: tuple[tuple[Path, int], ...]) -> str:
    whole = hashlib.sha256()
    for file, _ in files:
        with open(file, "rb") as content:
            whole.update(hashlib.file_digest(content, "sha256").digest())
    return f"weights {whole.hexdigest()[:12]}"


def check_recipe(trial: Trial, flags: Sequence[str] = ()) -> None:
    """Refuse a folder that holds a student, finished or not, that was made otherwise.

    Raises:
        InputError: something of the recipe is different.
    """
    record = trial.record()
    if record is not None:
        found = record.recipe
    elif trial.recipe_file.is_file() and (trial.folder / "model").exists():
        found = json.loads(trial.recipe_file.read_text())
    else:
        return
    for name, value in recipe(trial, flags).items():
        if found.get(name, "") != value:
            raise InputError(
                f"{trial.folder} holds a student made otherwise: its {name} is {found.get(name, '')!r}, "
                f"now it would be {value!r}; remove the folder to train it again, or set TABLES to another one"
            )


def run_trial(
    trial: Trial,
    flags: Sequence[str] = (),
    held_out: tuple[Path, Path] | None = None,
    kept: Path | None = None,
) -> None:
    """Train and evaluate one student, as far as that was not done before; see :func:`run_trials`.

    A training that was interrupted goes on from its last checkpoint.
    """
    trial.folder.mkdir(parents=True, exist_ok=True)
    model, scores = trial.folder / "model", trial.folder / "eval"
    if not (model / "trainer_state.json").is_file():
        fresh, started = not model.exists(), time.monotonic()
        trial.recipe_file.write_text(json.dumps(recipe(trial, flags), indent=1) + "\n")
        script = ["bash", str(REPOSITORY / "scripts" / "distill" / f"{trial.run.script}.sh")]
        own = ["--output_dir", str(model.resolve()), "--seed", str(trial.seed), "--run_name", trial.name]
        environment = {"DATA_SHARE": str(trial.run.data_share)}
        if trial.run.teacher:
            environment["TEACHER"] = trial.run.teacher
        _call([*script, *trial.run.flags, *own, "--resume", "auto", *flags], trial.folder / "train.log", **environment)
        if fresh:
            trial.took("train", time.monotonic() - started)
        for checkpoint in model.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    if not (scores / SCORES_FILE).is_file():
        started = time.monotonic()
        evaluate = ["bash", str(REPOSITORY / "scripts" / "eval" / "all.sh"), str(model.resolve())]
        _call(evaluate, trial.folder / "eval.log", OUTPUT_DIR=str(scores.resolve()))
        trial.took("evaluate", time.monotonic() - started)
    if held_out is not None and not trial.held_out_file.is_file():
        data, images = map(str, held_out)
        read = [sys.executable, "-m", "llava.eval.held_out", "--model-path", str(model.resolve()), "--data", data]
        read += ["--image-folder", images, "--out", str(trial.held_out_file.resolve())]
        _call([*read, "--batch-size", os.environ.get("BATCH_SIZE", "8")], trial.folder / "held_out.log")
    record = collect(trial)
    write_text(trial.record_file, record.text())
    if kept is not None:
        keep(kept, record)


def collect(trial: Trial) -> Record:
    """The record of a trial all of whose parts are done."""
    read = trial.held_out_file
    return Record(
        run=trial.name,
        seed=trial.seed,
        recipe=json.loads(trial.recipe_file.read_text()),
        scores=read_rows(str(trial.folder / "eval"))[0].scores,
        held_out=json.loads(read.read_text())["cross_entropy"] if read.is_file() else None,
        seconds=trial.seconds(),
        commit=str(json.loads((trial.folder / "model" / "run_config.json").read_text())["commit"]),
    )


def _call(command: Sequence[str], log: Path, **environment: str) -> None:
    with open(log, "w", encoding="utf-8") as file:
        done = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=REPOSITORY, env={**os.environ, **environment}
        )
    if done.returncode:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise InputError(f"{' '.join(command)} ended with status {done.returncode}; the end of {log}:\n{tail}")
