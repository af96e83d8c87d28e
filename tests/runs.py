"""Runs on the tiny world of ``tests/conftest.py``: their flags, and what they leave; commands run in this process."""

import importlib.util
import math
import runpy
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

COMMON = (
    "--mm_projector_type", "mlp2x_gelu", "--version", "qwen", "--use_cpu", "True", "--report_to", "none",
    "--logging_steps", "1", "--save_strategy", "no", "--disable_tqdm", "True", "--learning_rate", "2e-3",
    "--dataloader_pin_memory", "False",
)  # fmt: skip
"""Flags of every run on the tiny world."""


def steps(log: list[dict], *names: str) -> list[list[float]]:
    """What was logged step by step; NaN where a step has no such term."""
    return [[entry.get(name, math.nan) for name in names] for entry in log if "sft" in entry or "kd" in entry]


def as_if_killed_after(out: Path, step: int) -> None:
    """Leave of a finished run what a kill after the checkpoint of ``step`` leaves."""
    for folder in out.glob("checkpoint-*"):
        if folder.name != f"checkpoint-{step}":
            shutil.rmtree(folder)
    (out / "model.safetensors").unlink()


def run_module(words: Sequence[str]) -> None:
    """``python -m MODULE WORDS`` in this process.

    As in a new one, the module is not imported before it is run: runpy warns of two copies of it otherwise.
    """
    spec = importlib.util.find_spec(words[0])
    is_package = spec is not None and spec.submodule_search_locations is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*words])
        patch.delitem(sys.modules, f"{words[0]}.__main__" if is_package else words[0], raising=False)
        runpy.run_module(words[0], run_name="__main__")
