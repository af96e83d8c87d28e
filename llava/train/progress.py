"""Printed log lines: step, losses, speed and remaining time, with a progress bar below them on a terminal."""

import time
from collections.abc import Mapping
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ProgressCallback

SKIPPED = ("epoch", "total_flos", "train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss")
"""Values not printed: redundant with the step, or only about the machine."""
NAMES = {"learning_rate": "lr", "grad_norm": "grad"}


class ProgressLines(ProgressCallback):
    """Prints what is logged.

    Args:
        bar: Whether to show a progress bar (on a terminal).
    """

    def __init__(self, bar: bool) -> None:
        super().__init__()
        self.bar = bar
        self._start = (0.0, 0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Record the time and step at which training starts."""
        self._start = (time.monotonic(), state.global_step)
        if self.bar:
            super().on_train_begin(args, state, control, **kwargs)
            if self.training_bar is not None and state.global_step:  # resumed: these steps are not its speed
                self.training_bar.n = self.training_bar.initial = self.current_step = state.global_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        if self.bar:
            super().on_step_end(args, state, control, **kwargs)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *more: Any, **kwargs: Any
    ) -> None:
        """Move the bar of an evaluation."""
        if self.bar:
            super().on_prediction_step(args, state, control, *more, **kwargs)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Print one line."""
        if not state.is_world_process_zero or not logs:
            return
        started, first = self._start
        line = describe(logs, state.global_step, state.max_steps, time.monotonic() - started, state.global_step - first)
        if self.training_bar is not None:
            self.training_bar.write(line)
        else:
            print(line, flush=True)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        if self.bar:
            super().on_train_end(args, state, control, **kwargs)


def describe(logs: Mapping[str, Any], step: int, of: int, seconds: float, done: int) -> str:
    """A log line as text.

    Args:
        logs: Logged values.
        step: Steps done in the whole run.
        of: Total steps of the run.
        seconds: Time since this process started to train.
        done: Steps that this process has done.
    """
    values = "  ".join(
        f"{NAMES.get(name, name)} {value:.4g}" if isinstance(value, float) else f"{NAMES.get(name, name)} {value}"
        for name, value in logs.items()
        if name not in SKIPPED
    )
    parts = [f"step {step}/{of}"]
    if values:
        parts.append(values)
    if "train_runtime" in logs:
        parts.append(f"done in {duration(float(logs['train_runtime']))}, mean loss {float(logs['train_loss']):.4g}")
    elif done:
        parts.append(f"{seconds / done:.3g} s/step, {duration(seconds / done * (of - step))} left")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """``45 s``, ``3 min``, ``1 h 20 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
