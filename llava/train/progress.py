"""One line per line of log: step, losses, speed and time left; a bar below them on a terminal."""

import time
from collections.abc import Mapping
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ProgressCallback

SKIPPED = ("epoch", "total_flos", "train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss")
"""What a line leaves out: the step says it better, or it is about the machine alone."""
NAMES = {"learning_rate": "lr", "grad_norm": "grad"}


class ProgressLines(ProgressCallback):
    """Prints what is logged.

    Args:
        bar: whether to show a bar (on a terminal).
    """

    def __init__(self, bar: bool) -> None:
        super().__init__()
        self.bar = bar
        self._start = (0.0, 0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note when, and at which step, training starts."""
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
    """A line of log in words.

    Args:
        logs: what is logged.
        step: steps done in the whole run.
        of: steps of the whole run.
        seconds: since this process began to train.
        done: steps that it did in this time.
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
