"""Run a recipe, show its command, or plan it."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from align_ti.launch.job import Job, build_command, machine_for, plan_command
from align_ti.launch.machine import Machine, visible_gpus
from align_ti.launch.supervise import run_supervised
from align_ti.recipes.files import OF_THE_MINIATURE, RECIPES
from align_ti.recipes.flags import DISTILLATION, SUPERVISED
from align_ti.recipes.resolve import Recipe, for_plan, resolve
from llava.errors import InputError

MADE_BEFORE = ("model_name_or_path", "pretrain_mm_mlp_adapter", "teacher_path")
"""Flags whose files are made by an earlier stage."""


def train(recipe: Recipe) -> int:
    """Train a recipe on this machine's devices; a single training process replaces this one.

    Returns:
        Exit status.

    Raises:
        InputError: Devices, nodes and batch do not fit together, or an earlier stage has not been run.
    """
    machine = machine_for(recipe, Machine.from_environment(os.environ))
    command, environment = build_command(Job.of(recipe), machine, 0 if machine.gpus == 0 else visible_gpus())
    check_earlier_stages(recipe)
    whole = {**os.environ, **environment}
    if recipe.cpu_processes is not None and machine.gpus == 0:
        whole.setdefault("OMP_NUM_THREADS", "1")
    return run_supervised(command, {name: value for name, value in whole.items() if value is not None})


def command_of(recipe: Recipe) -> list[str]:
    """The command that would train a recipe; the requested devices need not exist.

    Raises:
        InputError: Devices, nodes and batch do not fit together.
    """
    machine = machine_for(recipe, Machine.from_environment(os.environ))
    return build_command(Job.of(recipe), machine, None if machine.gpus is not None else visible_gpus())[0]


def plan_of(recipe: Recipe) -> list[str]:
    """The command that prints the plan of a recipe; devices and models need not exist.

    Raises:
        InputError: The batch cannot be split evenly.
    """
    recipe = for_plan(recipe)
    return plan_command(Job.of(recipe), machine_for(recipe, Machine.from_environment(os.environ)))


def show(command: Sequence[str]) -> int:
    """Print a command, quoted for a shell."""
    sys.stdout.write(shlex.join(command) + "\n")
    return 0


def run(command: Sequence[str]) -> int:
    """Run a command and return its exit status."""
    return subprocess.run(command).returncode


def check_earlier_stages(recipe: Recipe) -> None:
    """Reject a recipe that needs the result of another one that has not been run.

    Raises:
        InputError: A result is missing; the message names the script to run first.
    """
    missing = [flag for flag in MADE_BEFORE if recipe.text(flag) and not Path(recipe.text(flag)).exists()]
    if not missing:
        return
    folders = ["--runs", recipe.text("runs")] if "runs" in recipe.given else []
    folders += ["--data_root", recipe.text("data_root")] if "data_root" in recipe.given else []
    for flag in missing:
        path = Path(recipe.text(flag))
        for earlier in _recipes(recipe, folders):
            if earlier.name != recipe.name and Path(earlier.text("output_dir")) in (path, path.parent):
                settings = f"PRESET={recipe.asked_pair} " if recipe.asked_pair else ""
                instead = "; or name a finished teacher with --teacher_path" if flag == "teacher_path" else ""
                command = settings + " ".join([earlier.script, *folders])
                raise InputError(f"{path} does not exist, but --{flag} needs it: run `{command}` first{instead}")


def _recipes(recipe: Recipe, words: Sequence[str]) -> Iterator[Recipe]:
    """All recipes with the same pair, including the miniature's own if the pair is one of the miniature's."""
    for folder in (RECIPES, OF_THE_MINIATURE) if recipe.text("teacher_base") else (RECIPES,):
        for file in sorted(folder.glob("*.yaml")):
            if file.stem != "studies":
                yield resolve(str(file), recipe.asked_pair, words)


def check_kind(command: str, recipe: Recipe) -> None:
    """Reject a recipe that belongs to another command.

    Raises:
        InputError: A distillation recipe is given to a command for stages without a teacher, or the reverse.
    """
    known = recipe.module in (DISTILLATION, SUPERVISED)
    if known and (recipe.module == DISTILLATION) != (command == "distill"):
        right = "distill" if recipe.module == DISTILLATION else "pretrain or finetune"
        raise InputError(f"the recipe {recipe.name} is not for `align-ti {command}`; use `align-ti {right}`")
