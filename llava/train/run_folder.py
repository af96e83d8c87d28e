"""How a run starts in its folder: from scratch, from a checkpoint, or not at all because it has finished already."""

import json
import logging
import re
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from accelerate.utils import broadcast_object_list

from llava.errors import InputError
from llava.model.config import TOWER_FOLDER
from llava.model.vision_tower.keep import keep_copy
from llava.model.weight_files import broken_weight_files
from llava.train.arguments import TrainingArguments
from llava.train.run_lock import run_lock
from llava.train.run_record import (
    RECORD_FILE,
    defaults_of,
    describe_run,
    differences,
    read_record,
    resumed,
    write_record,
)

logger = logging.getLogger(__name__)

STATE_FILE = "trainer_state.json"
T = TypeVar("T")

WRITTEN_BY_A_RUN = (
    "checkpoint-*", RECORD_FILE, STATE_FILE, "training_args.bin", "config.json", "generation_config.json",
    "*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin*", "mm_projector.bin", "non_lora_trainables.bin",
    "adapter_config.json", "adapter_model.bin", "README.md",
)  # fmt: skip
"""Files that are moved aside when a run starts over in a folder. Logs, the IRS and (a copy of) the tower stay."""


@dataclass(frozen=True)
class RunStart:
    """How a run starts; the same on all processes.

    Attributes:
        folder: Folder of the run.
        record: Content of ``run_config.json``, see ``describe_run``.
        checkpoint: Folder to resume from; None to start from scratch.
        finished: A message if the same run has finished already and there is nothing to do; otherwise "".
    """

    folder: Path
    record: dict[str, Any]
    checkpoint: str | None = None
    finished: str = ""

    def write(self, **groups: Any) -> None:
        """Write ``run_config.json`` (call it on the main process), with further groups of settings."""
        write_record(self.folder, {**self.record, **groups})


@contextmanager
def begin_run(arguments: TrainingArguments, also_free: Collection[str] = (), **groups: Any) -> Iterator[RunStart]:
    """Lock a run's folder and decide, for all processes, how the run starts.

    Args:
        arguments: ``output_dir`` and ``resume``; the other settings are compared with those of an existing run.
        also_free: Settings that may change on resuming, in addition to ``run_record.FREE_TO_CHANGE``.
        groups: Settings by group, as for ``describe_run``.

    Raises:
        InputError: The folder is in use, it contains a run with different settings, or the requested checkpoint is
            incomplete.
    """
    # One process decides and broadcasts the result: on a network file system, processes might see different states of
    # the folder, decide differently and deadlock. An error is broadcast as well, so that all processes stop.
    problem, start = "", None
    with ExitStack() as held:  # the lock is held until the caller's block ends
        if arguments.process_index == 0:
            try:
                held.enter_context(run_lock(str(arguments.output_dir)))
                start = _decide(arguments, also_free, groups)
            except InputError as error:
                problem = str(error)
        problem, start = of_the_main_process((problem, start), arguments)
        if start is None:
            raise InputError(problem)
        yield start


def of_the_main_process(value: T, arguments: TrainingArguments) -> T:
    """Broadcast the main process's value. Every process must call it."""
    return broadcast_object_list([value], from_process=0)[0] if arguments.world_size > 1 else value


def _decide(arguments: TrainingArguments, also_free: Collection[str], groups: dict[str, Any]) -> RunStart:
    folder = Path(str(arguments.output_dir))
    asked = describe_run(arguments.world_size, **groups)
    if arguments.resume == "never":
        set_aside(folder, WRITTEN_BY_A_RUN)
        return RunStart(folder, asked)
    by_hand = arguments.resume != "auto"
    checkpoint = find_checkpoint(folder, arguments.resume)
    finished = finished_steps(folder)
    if checkpoint is None and finished is None:
        return RunStart(folder, asked)
    record = read_record(folder)
    if record is None and not by_hand:
        raise InputError(
            f"{folder} contains {'checkpoints' if checkpoint else 'a finished model'} but no {RECORD_FILE}, so it "
            "cannot be checked that this is the same run. Choose another --output_dir, start over with --resume never "
            "(the existing files are moved aside), or resume from one of its checkpoints with --resume FOLDER"
        )
    changed = [] if record is None else differences(record, asked, also_free, defaults_of(**groups))
    if by_hand:
        assert checkpoint is not None
        for difference in changed:
            logger.warning("resuming from %s with a changed setting: %s", checkpoint, difference)
        set_aside(folder, _later_than(folder, Path(checkpoint)))
        return RunStart(folder, resumed({**asked, "changed": list(map(str, changed))}, asked, checkpoint), checkpoint)
    assert record is not None
    if changed:
        lines = "\n".join(f"  {difference}" for difference in changed)
        raise InputError(
            f"{folder} contains a run with different settings:\n{lines}\nChoose another --output_dir, start over with "
            "--resume never (the existing files are moved aside), or resume from a checkpoint with the new settings, "
            "with --resume FOLDER"
        )
    # Only now: a finished run with other settings is not the requested run.
    if finished is not None:
        steps, of = finished
        return RunStart(folder, record, finished=f"{folder}: already finished, {steps} of {of} steps; nothing to do")
    assert checkpoint is not None
    _check_zero(arguments, record)
    logger.info("resuming from %s", checkpoint)
    return RunStart(folder, resumed(record, asked, checkpoint), checkpoint)


def _check_zero(arguments: TrainingArguments, record: dict[str, Any]) -> None:
    """DeepSpeed's optimizer state is sharded over the processes and cannot be read by a different number of them."""
    before, now = record.get("processes"), arguments.world_size
    if arguments.deepspeed and before is not None and before != now:
        raise InputError(
            f"{arguments.output_dir} was trained by {before} processes with DeepSpeed, and {now} cannot read its "
            f"optimizer state: resume on {before} processes"
        )


def finished_steps(folder: str | Path) -> tuple[int, int] | None:
    """Steps done and planned of a finished run (its state is the last file written); None if it has not finished."""
    try:
        state = json.loads((Path(folder) / STATE_FILE).read_text(encoding="utf-8"))
        done, planned = int(state["global_step"]), int(state["max_steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if done < planned or planned <= 0 or not _weights(Path(folder)):
        return None
    return None if broken_weight_files(folder) else (done, planned)


def _weights(folder: Path) -> list[Path]:
    """Weight files of a model, a projector or an adapter in a folder."""
    files = [path for suffix in ("*.safetensors", "*.bin") for path in folder.glob(suffix)]
    return [path for path in files if path.name != "training_args.bin"]


def set_aside(folder: Path, patterns: Collection[str]) -> None:
    """Move matching files to a new folder ``earlier-run-N``, so that they are not mistaken for files of the next
    run."""
    found = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    if not found:
        return
    number = 1
    while (folder / f"earlier-run-{number}").exists():
        number += 1
    aside = folder / f"earlier-run-{number}"
    aside.mkdir()
    for path in found:
        path.rename(aside / path.name)
    if (folder / TOWER_FOLDER).is_dir():  # the models moved aside refer to it by its relative path
        keep_copy(folder / TOWER_FOLDER, aside / TOWER_FOLDER)
    logger.warning("%s: moved an earlier run to %s; it can be deleted", folder, aside.name)


def _later_than(folder: Path, checkpoint: Path) -> list[str]:
    """Files in a run's folder that are newer than one of its checkpoints: later checkpoints and the finished model."""
    numbers = _numbered(folder)
    step = next((number for number, path in numbers if path.resolve() == checkpoint.resolve()), None)
    if step is None:  # a checkpoint from another folder
        return list(WRITTEN_BY_A_RUN)
    # These were trained with settings that no longer apply; a later `--resume auto` would resume from them.
    later = [path.name for number, path in numbers if number > step]
    return [*later, *(pattern for pattern in WRITTEN_BY_A_RUN if pattern != "checkpoint-*")]


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a folder with their steps, newest first."""
    found = []
    for path in folder.glob("checkpoint-*"):
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if match and path.is_dir():
            found.append((int(match[1]), path))
    return sorted(found, reverse=True)


def problem_of(checkpoint: Path) -> str:
    """Why a checkpoint cannot be resumed from; "" if it can (the trainer's state is written last)."""
    try:
        json.loads((checkpoint / STATE_FILE).read_text())
    except (OSError, ValueError):
        return f"it has no readable {STATE_FILE}, so it is incomplete"
    if not _weights(checkpoint) and not any(checkpoint.glob("global_step*")):
        return "it has no weights"
    broken = broken_weight_files(checkpoint)
    return str(broken[0]) if broken else ""


def find_checkpoint(folder: str | Path, resume: str) -> str | None:
    """The checkpoint to resume from.

    Args:
        folder: Folder of the run, with ``checkpoint-STEP`` folders.
        resume: ``auto`` (newest complete checkpoint, if any), ``never``, or the folder of a checkpoint.

    Returns:
        The folder, or None to start from scratch. Incomplete checkpoints are skipped with a warning.

    Raises:
        InputError: The requested folder is not a complete checkpoint.
    """
    if resume == "never":
        return None
    if resume != "auto":
        problem = problem_of(Path(resume))
        if problem:
            raise InputError(f"--resume {resume}: {problem}; expected a complete checkpoint")
        return resume
    for _, path in _numbered(Path(folder)):
        problem = problem_of(path)
        if not problem:
            return str(path)
        logger.warning("skipping %s: %s", path, problem)
    return None
