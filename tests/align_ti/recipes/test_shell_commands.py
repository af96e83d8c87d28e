"""Recipes train what the shell scripts trained that they replaced: every stage of every pair, flag by flag.

``shell_commands.json`` holds the commands that those printed, as flags of the last value each: ``base`` by stage, on 8
GPUs with the default models, and what is different with other pairs and machines.
"""

import json
from pathlib import Path

import pytest

from align_ti.launch.job import Job, build_command, machine_for
from align_ti.launch.machine import Machine
from align_ti.recipes.files import PAIRS, names_in
from align_ti.recipes.flags import parse_flags
from align_ti.recipes.resolve import resolve

COMMANDS = json.loads(Path(__file__).with_name("shell_commands.json").read_text())
MACHINES = {"8 GPUs": Machine(gpus=8), "2 CPU processes": Machine(gpus=0, cpu_processes=2)}
ROOT = Path(__file__).resolve().parents[3]


def flags_of(stage: str, pair: str | None, machine: Machine) -> dict[str, str]:
    """The command that would train, as flags."""
    recipe = resolve(stage, pair)
    words = build_command(Job.of(recipe), machine_for(recipe, machine))[0]
    behind = words.index(recipe.module) + 1
    return {"module": recipe.module} | {name: " ".join(given) for name, given in parse_flags(words[behind:]).items()}


@pytest.mark.parametrize("pair", COMMANDS["changes"])
def test_every_stage_is_what_it_was(pair, monkeypatch):
    monkeypatch.chdir(ROOT)
    compared = 0
    for machine, stages in COMMANDS["changes"][pair].items():
        for stage, changes in stages.items():
            before = {**COMMANDS["base"][stage], **changes}
            wanted = {name: value for name, value in before.items() if value is not None}
            assert flags_of(stage, pair, MACHINES[machine]) == wanted, (stage, machine)
            compared += 1
    assert compared == (9 if pair.startswith("mini") else 18), "the miniature's batch could not be split over 8 GPUs"


def test_all_pairs_are_compared():
    assert sorted(COMMANDS["changes"]) == names_in(PAIRS)


def test_the_recipes_alone_are_the_default_pair(monkeypatch):
    monkeypatch.chdir(ROOT)
    for stage, wanted in COMMANDS["base"].items():
        assert flags_of(stage, None, MACHINES["8 GPUs"]) == wanted


@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
def test_the_miniature_shares_its_batch_over_any_number_of_gpus(gpus):
    flags = flags_of("align-ti", "mini", Machine(gpus=gpus))
    assert int(flags["per_device_train_batch_size"]) * gpus == 32 and flags["gradient_accumulation_steps"] == "1"


def test_the_words_stages_of_the_miniature(monkeypatch):
    monkeypatch.chdir(ROOT)
    for pair, role, base, rate in (
        ("mini", "teacher", "teacher-lm", "1e-3"),
        ("mini-llama", "student", "student-llama-lm", "1e-3"),
        ("mini-small-teacher", "teacher", "teacher-small-lm", "1e-3"),
        ("mini-large-teacher", "teacher", "teacher-large-lm", "5e-4"),
    ):
        runs = "playground/mini/runs" + {"teacher-small-lm": "/small", "teacher-large-lm": "/large"}.get(base, "")
        runs += "/llama" if pair == "mini-llama" else ""
        before = {
            **COMMANDS["base"][f"{role}-pretrain"],
            **COMMANDS["changes"][pair]["2 CPU processes"][f"{role}-pretrain"],
        }
        shared = {name: value for name, value in before.items() if value is not None}
        shared |= {"data_path": "playground/mini/build/words.json", "learning_rate": rate}
        epochs = {"teacher": "0.75", "student": "0.63"}[role]
        texts = {"model_name_or_path": f"playground/mini/build/models/{base}", "output_dir": f"{runs}/{role}-texts",
                 "num_train_epochs": "0.17", "train_on_inputs": "1"}  # fmt: skip
        words = {"model_name_or_path": f"{runs}/{role}-texts", "output_dir": f"{runs}/{role}-words",
                 "num_train_epochs": epochs, **({"train_on_inputs": "0.02"} if role == "student" else {})}  # fmt: skip
        for stage, own in (("texts", texts), ("words", words)):
            recipe = f"playground/mini/recipes/{role}-{stage}.yaml"
            assert flags_of(recipe, pair, MACHINES["2 CPU processes"]) == shared | own
        start = resolve(f"{role}-pretrain", pair).text("model_name_or_path")
        assert start == f"{runs}/{role}-words", "stage 1 starts from it"
