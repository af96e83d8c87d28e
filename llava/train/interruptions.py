"""Clean stops: on a scheduler's signal, on Ctrl-C, on a full disk."""

import logging
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llava.errors import InputError

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""Signals that schedulers send before they take back a machine (SLURM: ``--signal=USR1@120``), and Ctrl-C."""


class StopOnSignal(TrainerCallback):
    """On one of ``SIGNALS``, finishes the step, saves a checkpoint and stops training; a second Ctrl-C stops at once.

    The signal may reach the ranks at different times, or only one of them, so they agree at the end of every step.

    Attributes:
        received: Number of the signal that stopped training; 0 if there was none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._seen = 0
        self._former: dict[int, Any] = {}

    def _note(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT:
            if self._seen == number:
                raise KeyboardInterrupt
            logger.warning("Ctrl-C: saving a checkpoint after this step, then stopping; again stops at once")
        self._seen = number

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Install the handlers, if this is the main thread (Python allows them only there)."""
        self.received = self._seen = 0
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._note) for number in SIGNALS}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop if any rank received a signal."""
        self.received = self._seen
        if dist.is_initialized() and args.world_size > 1:
            number = torch.tensor(self._seen, device=args.device)
            dist.all_reduce(number, op=dist.ReduceOp.MAX)
            self.received = int(number)
        if self.received:
            logger.warning("%s: saving a checkpoint after step %d and stopping", self.name, state.global_step)
            control.should_save = control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore the previous handlers."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    @property
    def name(self) -> str:
        """The signal's name."""
        return signal.Signals(self.received).name if self.received else ""


@contextmanager
def checkpoint_writing(folder: Path) -> Iterator[None]:
    """Context for writing a checkpoint: if that fails, the incomplete checkpoint is removed and the error names the
    remaining ones.

    Raises:
        InputError: The checkpoint could not be written.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch.save reports a full disk as a RuntimeError
        shutil.rmtree(folder, ignore_errors=True)
        kept = sorted(path.name for path in folder.parent.glob("checkpoint-*") if path != folder)
        raise InputError(
            f"{folder} could not be written ({error}); {free_space(folder.parent)}. Kept: {', '.join(kept) or 'none'}. "
            "Free some space and run the same command again: it resumes from the newest complete checkpoint"
        ) from error


def free_space(folder: Path) -> str:
    """ "1.5 GiB free on its disk" """
    try:
        return f"{shutil.disk_usage(folder).free / 2**30:.1f} GiB free on its disk"
    except OSError:
        return "its disk cannot be read"
