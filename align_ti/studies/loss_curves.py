"""Loss curves of several runs, one panel per term (``python -m align_ti.studies.loss_curves --out F.png RUN...``)."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from align_ti.losses.registry import LOSSES
from llava.errors import InputError, run_cli


def read_log(run: Path) -> list[dict]:
    """The log entries of a finished run.

    Raises:
        InputError: The folder has no ``trainer_state.json``.
    """
    file = run / "trainer_state.json"
    if not file.exists():
        raise InputError(f"{run} is not a finished run: it has no trainer_state.json")
    return json.loads(file.read_text())["log_history"]


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Moving average over the last ``window`` values."""
    return [sum(values[max(0, i - window + 1) : i + 1]) / min(i + 1, window) for i in range(len(values))]


def plot_losses(runs: Mapping[str, Path], file: Path, window: int = 10) -> None:
    """Plot every logged loss term against the optimizer step.

    Args:
        runs: Name -> folder of a finished run.
        file: Image file to write.
        window: Number of log entries that a point averages over.
    """
    logs = {name: read_log(run) for name, run in runs.items()}
    terms = [term for term in LOSSES if any(term in entry for log in logs.values() for entry in log)]
    if not terms:
        raise InputError("none of the runs logged a loss; --logging_steps may have been larger than the run")
    figure = Figure(figsize=(4.2 * len(terms), 3.4), layout="constrained")
    for axes, term in zip(figure.subplots(1, len(terms), squeeze=False)[0], terms, strict=True):
        for color, (name, log) in enumerate(logs.items()):
            points = [(entry["step"], entry[term]) for entry in log if term in entry]
            if points:
                steps, values = zip(*points, strict=True)
                marker = "." if len(steps) < 10 else None  # a single point would draw no line
                axes.plot(steps, smooth(values, window), label=name, color=f"C{color}", linewidth=1.4, marker=marker)
        loss = LOSSES[term]
        axes.set_title(f"{loss.title}\n${loss.equation}$", fontsize=9)
        axes.set(xlabel="step", ylabel=loss.unit, yscale="linear" if loss.signed else "log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(" (")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a finished run; NAME=RUN sets its label")
    parser.add_argument("--out", type=Path, required=True, help="image file to write")
    parser.add_argument("--window", type=int, default=10, help="number of log entries that a point averages over")
    arguments = parser.parse_args()
    named = {}
    for run in arguments.runs:
        name, separator, path = run.partition("=")
        named[name if separator else Path(run).name] = Path(path if separator else run)
    plot_losses(named, arguments.out, arguments.window)


if __name__ == "__main__":
    run_cli(main)
