"""The command ``align-ti``, which runs every program of the repository.

A subcommand's modules are imported only when it runs, so that ``align-ti --help`` is fast.
"""

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from align_ti.launch.module import run_module
from llava.errors import InputError, run_cli

USAGE = """\
usage: align-ti COMMAND ...

Train small vision-language models under large ones.

  data prepare|benchmarks|check|hold-out   get and check training mixes and benchmarks
  pretrain RECIPE                          stage 1, the projector: teacher, student
  finetune RECIPE                          stage 2 without a teacher: teacher, sft
  distill RECIPE                           stage 2 of the student: align-ti, vanilla-kd, gkd, minillm, uniform-alignment
  plan RECIPE                              steps, memory of a GPU, FLOPs and hours of a recipe; trains nothing
  eval BENCHMARK|all CHECKPOINT            gqa, mmbench, mme, pope, sqa, textvqa; `eval ask` for questions of your own
  table NAME                               the paper's tables and figures: table5, figure7, ...
  export                                   to transformers' or LLaVA's format
  chat                                     talk to a model in the terminal
  web                                      models side by side in the browser, and where they look
  demo                                     the whole path on a miniature, on a CPU

`align-ti COMMAND --help` says more. Recipes are in scripts/recipes.
"""

RECIPE_USAGE = """\
usage: align-ti {command} RECIPE [--pair NAME] [--print] [--FLAG VALUE ...]

RECIPE      {recipes}; or the path of a YAML file
--pair      pair of models: {pairs}; or the path of a YAML file. PRESET says the same
--print     print the command that would run, and stop
--runs      folder of the pair's runs
--data_root folder of the data
--teacher_lm, --student_lm   language models that the first stages start from
--global_batch               samples of one optimizer step, over all GPUs
--data_share                 percent of the epochs that is trained

Every flag of the trainer may follow, and wins over the recipe:
  python -m {module} --help
Devices come from the environment: NUM_GPUS, NUM_NODES, HOSTFILE, MASTER_ADDR, MASTER_PORT, LAUNCHER, CPU_PROCESSES,
CUDA_VISIBLE_DEVICES.
"""

STAGES = ("pretrain", "finetune", "distill", "plan")
"""Commands that take a recipe."""

HANDED_OVER = {
    "export": "llava.export",
    "chat": "llava.serve.cli",
    "web": "align_ti.web.server",
    "demo": "align_ti.demo",
    "table": "align_ti.studies.tables",
    "eval": "align_ti.launch.evaluate",
}
"""Modules that are passed the rest of the command line."""

DATA = {
    "prepare": ("llava.prepare",),
    "benchmarks": ("llava.prepare", "benchmarks"),
    "check": ("llava.data.check",),
    "hold-out": ("align_ti.studies.hold_out",),
}
"""Programs of ``align-ti data``, with their first words."""


def data(words: Sequence[str]) -> int:
    """``align-ti data``.

    Raises:
        InputError: There is no such program.
    """
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write("usage: align-ti data prepare|benchmarks|check|hold-out ...\n")
        return 0
    if words[0] not in DATA:
        raise InputError(f"no `align-ti data {words[0]}`; there are: {', '.join(DATA)}")
    module, *first = DATA[words[0]]
    return run_module(module, [*first, *words[1:]])


def stage(command: str, words: Sequence[str]) -> int:
    """``align-ti pretrain``, ``finetune``, ``distill`` and ``plan``.

    Raises:
        InputError: The recipe or the command line is invalid.
    """
    from align_ti.launch import stages
    from align_ti.recipes.files import PAIRS, RECIPES, names_in
    from align_ti.recipes.flags import take_option, take_switch
    from align_ti.recipes.resolve import resolve

    if not words or words[0].startswith("-"):
        if words and words[0] not in ("-h", "--help"):
            raise InputError(f"align-ti {command} RECIPE: name the recipe before its flags; got {words[0]!r}")
        recipes = [name for name in names_in(RECIPES) if name != "studies"]
        module = "align_ti.training.train" if command == "distill" else "llava.train.train"
        listed = {"recipes": ", ".join(recipes), "pairs": ", ".join(names_in(PAIRS))}
        sys.stdout.write(RECIPE_USAGE.format(command=command, module=module, **listed))
        return 0
    name, *flags = words
    if "--help" in flags or "-h" in flags:
        return stage(command, ["--help"])
    pair, flags = take_option(flags, "--pair")
    shown, flags = take_switch(flags, "--print")
    if f"{name}-{command}" in names_in(RECIPES):  # `align-ti pretrain teacher`
        name = f"{name}-{command}"
    recipe = resolve(name, pair or os.environ.get("PRESET"), flags)
    if command == "plan":
        return stages.show(stages.plan_of(recipe)) if shown else stages.run(stages.plan_of(recipe))
    stages.check_kind(command, recipe)
    return stages.show(stages.command_of(recipe)) if shown else stages.train(recipe)


def main() -> int:
    """Entry point.

    Raises:
        InputError: There is no such command.
    """
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(USAGE)
        return 0
    command, *rest = words
    if command == "data":
        return data(rest)
    if command in STAGES:
        return stage(command, rest)
    if command in HANDED_OVER:
        return run_module(HANDED_OVER[command], rest)
    commands = ("data", *STAGES, *HANDED_OVER)
    near = get_close_matches(command, commands, n=1)
    advice = f"did you mean {near[0]}?" if near else f"there are: {', '.join(commands)}"
    raise InputError(f"no command {command!r}; {advice}")


def run() -> None:
    """The console script."""
    run_cli(main)


if __name__ == "__main__":
    run()
