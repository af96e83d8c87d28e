"""The complete pipeline on the embedded miniature, on a CPU: from data to a table of a teacher and three students.

    align-ti demo            the full miniature
    align-ti demo --quick    the same pipeline on a hundredth of the data, in separate folders: shows that everything
                             runs, not what the models learn

Steps whose results exist are skipped; delete playground/mini/runs to train again. QUICK=1 is the same as --quick. The
output of each step is in playground/mini/runs/logs; without a terminal only one line per step is printed.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from align_ti.launch.logged import run_logged
from align_ti.recipes.files import CHECKOUT
from llava.errors import InputError, run_cli
from llava.files import write_text

QUICK_BUILD = (
    *("--scenes", "48", "--samples-per-scene", "4", "--pretrain-scenes", "64", "--text-documents", "400"),
    *("--word-scenes", "48", "--held-out-scenes", "16", "--eval-scale", "0.02"),
)
QUICK_BASE = ("--tower-epochs", "1")
PYTHON = (sys.executable, "-m")
CLI = (*PYTHON, "align_ti.cli")


@dataclass(frozen=True)
class Demo:
    """Folders and size of the demo.

    Attributes:
        data: Folder of the data and base models.
        runs: Folder of the trained models.
        quick: Whether everything has a hundredth of the size.
    """

    data: Path
    runs: Path
    quick: bool

    def step(self, name: str, result: Path | None, command: Sequence[str]) -> None:
        """Run a command unless its result exists; its output goes to ``logs/NAME.log``, and to a terminal as well.

        Args:
            name: Name of the step.
            result: File that it writes last; None for a command that skips finished work itself.
            command: The command and its arguments.

        Raises:
            SystemExit: The command failed; the status is its own.
        """
        if result is not None and result.exists():
            say(f"== {name}: done before ({result})")
            return
        if sys.stdout.isatty():
            say(f"== {name}")
        started, logs = time.monotonic(), self.runs / "logs"
        offline = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHON": sys.executable, "PRESET": "mini"}
        status = run_logged(command, logs / f"{name}.log", {**os.environ, **offline}, CHECKOUT)
        if status:
            raise SystemExit(status)
        seconds = round(time.monotonic() - started)
        say(f"== {name}: {seconds} s")
        with open(logs / "seconds.txt", "a", encoding="utf-8") as file:
            file.write(f"{name} {seconds}\n")

    def check_data(self) -> None:
        """Reject models that were trained on different data.

        Raises:
            InputError: There are such models.
        """
        now = json.loads((self.data / "manifest.json").read_text(encoding="utf-8"))["contents"]
        for trained in (self.data / "models", self.runs):
            note = trained / "data.txt"
            if note.exists() and note.read_text(encoding="utf-8").strip() != now:
                raise InputError(
                    f"the models in {trained} were trained on other data than {self.data} has now; to train them "
                    f"again: rm -r {self.data / 'models'} {self.runs}"
                )
            trained.mkdir(parents=True, exist_ok=True)
            write_text(note, f"{now}\n")

    def train(self, name: str, command: str, recipe: str) -> None:
        """Run a stage that writes its model to the folder of that name in the runs' folder."""
        self.finish(name, [*CLI, command, recipe])

    def finish(self, name: str, command: Sequence[str]) -> None:
        """Run a training that ends by writing the trainer's state to the folder of that name in the runs' folder."""
        places = ["--data_root", str(self.data), "--runs", str(self.runs)]
        self.step(name, self.runs / name / "trainer_state.json", [*command, *places])

    def run(self) -> None:
        """Run all steps.

        Raises:
            InputError: See :meth:`check_data`.
            SystemExit: A step failed.
        """
        (self.runs / "logs").mkdir(parents=True, exist_ok=True)
        data, quick = str(self.data), self.quick
        self.step("data", None, [*PYTHON, "playground.mini.build", "--out", data, *(QUICK_BUILD if quick else ())])
        self.check_data()
        base = [*PYTHON, "playground.mini.base_models", "--data", data, *(QUICK_BASE if quick else ())]
        self.step("base-models", self.data / "models" / "figures.json", base)
        for role in ("teacher", "student"):
            self.finish(f"{role}-words", ["bash", "playground/mini/words.sh", role])
            self.train(f"{role}-pretrain", "pretrain", role)
            if role == "teacher":
                self.train("teacher", "finetune", "teacher")
        self.train("student-sft", "finetune", "sft")
        self.train("student-vanilla-kd", "distill", "vanilla-kd")
        self.train("student-align-ti", "distill", "align-ti")
        for model in ("teacher", "student-sft", "student-vanilla-kd", "student-align-ti"):
            scores = self.runs / "eval" / model
            where = ["--data_root", data, "--output-dir", str(scores)]
            self.step(f"eval-{model}", scores / "scores.json", [*CLI, "eval", "all", str(self.runs / model), *where])
        report = [*PYTHON, "playground.mini.report", "--build", data, "--runs", str(self.runs)]
        self.step("report", None, report)
        if not sys.stdout.isatty():
            say((self.runs / "results.md").read_text(encoding="utf-8").rstrip())


def say(line: str) -> None:
    """Print and flush, so that the text is in order with the output of the steps."""
    print(line, flush=True)


def main() -> None:
    """Entry point.

    Raises:
        InputError: This is not a checkout of the repository, or there are models that were trained on different data.
        SystemExit: A step failed.
    """
    parser = argparse.ArgumentParser(
        prog="align-ti demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", default=bool(os.environ.get("QUICK")), help="a hundredth of it")
    parser.add_argument("--data_root", type=Path, help="folder of the data; else playground/mini/build")
    parser.add_argument("--runs", type=Path, help="folder of the trained models; else playground/mini/runs")
    arguments = parser.parse_args()
    if not (CHECKOUT / "playground" / "mini").is_dir():
        raise InputError(
            "the demo needs a checkout of the repository: git clone it, and run bash scripts/demo.sh there"
        )
    started, home = time.monotonic(), Path("playground/mini/quick" if arguments.quick else "playground/mini")
    given = {name: Path(value).resolve() for name, value in vars(arguments).items() if isinstance(value, Path)}
    os.chdir(CHECKOUT)
    Demo(given.get("data_root", home / "build"), given.get("runs", home / "runs"), arguments.quick).run()
    say(f"== all done in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    run_cli(main)
