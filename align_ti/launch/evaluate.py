"""Evaluate a checkpoint with one process per GPU: ``align-ti eval``.

    align-ti eval all CHECKPOINT [flags of llava.eval.run]     or one of gqa, mmbench, mme, pope, sqa, textvqa, chair
    align-ti eval ask [flags of llava.eval.ask]                your own questions

``--pair NAME`` (or PRESET) selects the benchmarks of that pair; ``--eval-root`` sets their folder. Answers and scores
are written to ``eval`` in the checkpoint's folder, or to ``--output-dir``. ``CUDA_VISIBLE_DEVICES`` selects the GPUs:
all if it is not set, the CPU if it is empty.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from align_ti.launch.module import run_module
from align_ti.recipes.files import CHECKOUT
from align_ti.recipes.flags import parse_flags, words_of
from align_ti.recipes.resolve import resolve
from llava.errors import InputError, Stopped, run_cli

ALONE = "--num-chunks"


def gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Names or numbers of the GPUs to use, determined without torch, whose import takes seconds."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [part.strip() for part in visible.split(",") if part.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True).stdout.split()


def evaluation_words(benchmark: str, checkpoint: str, words: Sequence[str]) -> list[str]:
    """The arguments of ``python -m llava.eval.run``.

    Args:
        benchmark: Name of a benchmark, or ``all``.
        checkpoint: Folder or hub name.
        words: Flags, which take precedence over the pair's.

    Raises:
        InputError: There is no such pair.
    """
    given = parse_flags(words)
    pair = " ".join(given.pop("pair", ())) or os.environ.get("PRESET")
    root = [word for word in ("data_root",) if word in given]
    places = resolve("studies", pair, words_of({name: given.pop(name) for name in root}))
    if "output_dir" not in given:
        inside = Path(checkpoint) / "eval"
        runs = CHECKOUT / "playground" / "data" / "runs"
        given["output_dir"] = (str(inside if Path(checkpoint).is_dir() else runs / Path(checkpoint).name),)
    given.setdefault("eval_root", (str(CHECKOUT / places.text("eval_root")),))
    given.setdefault("batch_size", (places.text("eval_batch_size"),))
    return ["--benchmark", benchmark, "--model-path", checkpoint, *words_of(given)]


def on_every_gpu(module: str, words: Sequence[str], devices: Sequence[str]) -> int:
    """Run a program once per GPU, each process with its share of the questions; a signal stops all of them.

    Returns:
        Exit status: 0 if all processes succeeded.

    Raises:
        Stopped: A signal was received.
    """
    running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def stop(number: int, frame: FrameType | None) -> None:
        for _, process in running:
            process.terminate()
        raise Stopped(f"stopped by {signal.Signals(number).name}; run the same command again to continue", 128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    for index, device in enumerate(devices):
        share = [ALONE, str(len(devices)), "--chunk-idx", str(index)]
        command = [sys.executable, "-m", module, *words, *share]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": device}
        running.append((device, subprocess.Popen(command, env=environment)))
    failed = [device for device, process in running if process.wait() != 0]
    for device in failed:
        sys.stderr.write(f"error: the process on GPU {device} failed\n")
    return 1 if failed else 0


def main() -> int:
    """Entry point.

    Raises:
        InputError: No checkpoint is named.
    """
    words, devices = sys.argv[1:], gpus()
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(__doc__ or "")
        return 0
    if words[0] == "ask":
        ask = "llava.eval.ask"
        return run_module(ask, words[1:]) if len(devices) <= 1 else on_every_gpu(ask, words[1:], devices)
    benchmark, *rest = words
    if not rest or rest[0].startswith("-"):
        if "--help" in rest:
            return run_module("llava.eval.run", ["--help"])
        raise InputError(f"usage: align-ti eval {benchmark} CHECKPOINT [flags of llava.eval.run]")
    module, words = "llava.eval.run", evaluation_words(benchmark, rest[0], rest[1:])
    if len(devices) <= 1:
        return run_module(module, words)
    return on_every_gpu(module, [*words, "--stage", "generate"], devices) or run_module(
        module, [*words, "--stage", "score", ALONE, str(len(devices))]
    )


if __name__ == "__main__":
    run_cli(main)
