"""The scripts that people know: each runs its recipe, from any folder, with the pair, flags and devices it is given."""

import os
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from transformers import HfArgumentParser

from align_ti.launch.job import Job, build_command, machine_for
from align_ti.launch.machine import Machine
from align_ti.launch.stages import check_earlier_stages, plan_of
from align_ti.recipes.files import PAIRS, names_in
from align_ti.recipes.resolve import Recipe, resolve
from align_ti.training.arguments import DistillArguments
from llava.errors import InputError
from llava.train.shapes import KNOWN

ROOT = Path(__file__).resolve().parents[2]
STAGES = {
    "teacher/pretrain": "teacher-pretrain", "teacher/finetune": "teacher-finetune",
    "student/pretrain": "student-pretrain", "distill/sft": "sft", "distill/vanilla_kd": "vanilla-kd",
    "distill/align_ti": "align-ti", "distill/gkd": "gkd", "distill/minillm": "minillm",
    "distill/uniform_alignment": "uniform-alignment",
}  # fmt: skip
"""Scripts and their recipes."""


def run(script: str, *flags: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a script from another folder, as a user would."""
    variables = {"PATH": os.environ["PATH"], "HOME": "/tmp", "PYTHON": sys.executable, **environment}
    command = ["bash", str(ROOT / script), *flags]
    return subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True, timeout=60)


def show(script: str, *flags: str, **environment: str) -> subprocess.CompletedProcess:
    """What a script would run."""
    return run(f"scripts/{script}.sh", "--print", *flags, **environment)


def flags_of(done: subprocess.CompletedProcess) -> dict[str, str]:
    """``--flag value`` pairs of the printed command."""
    assert done.returncode == 0, done.stderr
    return words_to_flags(shlex.split(done.stdout))


def words_to_flags(words: list[str]) -> dict[str, str]:
    """``--flag value`` pairs of a command."""
    return {word: words[index + 1] for index, word in enumerate(words[:-1]) if word.startswith("--")}


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("script", STAGES)
def test_a_script_runs_its_recipe(script):
    """With any pair: what ``tests/align_ti/recipes`` compares flag by flag."""
    recipe = resolve(STAGES[script], "qwen3-8b-1.7b")
    assert recipe.script == f"bash scripts/{script}.sh"
    words = build_command(Job.of(recipe), Machine(gpus=8))[0]
    of_the_port = {"--master_port"}
    shown, wanted = flags_of(show(script, PRESET="qwen3-8b-1.7b", NUM_GPUS="8")), words_to_flags(words)
    assert {name: shown.get(name) for name in wanted if name not in of_the_port} == {
        name: value for name, value in wanted.items() if name not in of_the_port
    }


MODELS = {
    "qwen2-7b-0.5b": ("Qwen/Qwen2-7B", "Qwen/Qwen2-0.5B"),
    "qwen2-7b-1.5b": ("Qwen/Qwen2-7B", "Qwen/Qwen2-1.5B"),
    "qwen3-8b-0.6b": ("Qwen/Qwen3-8B", "Qwen/Qwen3-0.6B"),
    "qwen3-8b-1.7b": ("Qwen/Qwen3-8B", "Qwen/Qwen3-1.7B"),
    "qwen3-4b-0.6b": ("Qwen/Qwen3-4B", "Qwen/Qwen3-0.6B"),
    "qwen3-1.7b-0.6b": ("Qwen/Qwen3-1.7B", "Qwen/Qwen3-0.6B"),
    "vicuna-7b-mobilellama-1.4b": ("lmsys/vicuna-7b-v1.5", "mtgv/MobileLLaMA-1.4B-Chat"),
}


def test_the_full_scale_pairs_start_from_the_papers_language_models():
    """By the names that the paper prints: Qwen2 without "-Instruct", Qwen3 without "-Base"."""
    assert set(MODELS) == {pair for pair in names_in(PAIRS) if not pair.startswith("mini")}
    for pair, models in MODELS.items():
        for role, model in zip(("teacher", "student"), models, strict=True):
            pretrain = resolve(f"{role}-pretrain", pair)
            assert pretrain.text("model_name_or_path") == model and pretrain.text("tune_mm_mlp_adapter") == "True"
            assert model in KNOWN, "a plan can be made without a network"
        assert resolve("align-ti", pair).text("model_name_or_path") == models[1]


def test_the_miniatures_language_models_read_words_first():
    done = run("playground/mini/words.sh", "student", "--print", PRESET="mini-llama")
    assert done.returncode == 0, done.stderr
    texts, answers = (words_to_flags(shlex.split(line)) for line in done.stdout.splitlines())
    assert texts["--model_name_or_path"] == "playground/mini/build/models/student-llama-lm"
    assert answers["--model_name_or_path"] == texts["--output_dir"]
    assert answers["--output_dir"] == "playground/mini/runs/llama/student-words"
    done = run("playground/mini/words.sh", "pupil", PRESET="mini")
    assert done.returncode == 2 and "words.sh teacher|student [flags]; got 'pupil'" in done.stderr


def test_align_ti_has_the_papers_settings():
    flags = flags_of(show("distill/align_ti", NUM_GPUS="16"))
    assert flags["--losses"] == "sft,kd,iva,tpa" and flags["--tpa_d"] == "4" and flags["--iva_layer"] == "auto"
    assert flags["--learning_rate"] == "2e-5" and flags["--lr_scheduler_type"] == "cosine" and flags["--bf16"] == "True"
    assert flags["--vision_tower"] == "google/siglip-so400m-patch14-384"


@pytest.mark.parametrize(
    "recipe, losses, more",
    [
        ("gkd", ["sft", "kd"], {"divergence": "jsd", "jsd_beta": 0.5, "on_policy_fraction": 0.5}),
        ("minillm", ["sft", "pg"], {"on_policy_fraction": 0.5}),
        ("uniform-alignment", ["sft", "kd", "iva"], {"iva_weights": "uniform", "on_policy_fraction": 0.0}),
    ],
)
def test_the_methods_compared_with(recipe, losses, more):
    flags = words_to_flags(build_command(Job.of(resolve(recipe)), Machine(gpus=8))[0])
    known = [f"--{field.name}" for field in fields(DistillArguments)]
    given = [word for flag in flags if flag in known for word in (flag, flags[flag])]
    (arguments,) = HfArgumentParser(DistillArguments).parse_args_into_dataclasses(given)
    assert arguments.chosen_losses == losses
    assert {name: getattr(arguments, name) for name in more} == more
    assert flags["--output_dir"].endswith(f"student-{recipe}")


@pytest.mark.parametrize("stage, batch", [("align-ti", 128), ("teacher-finetune", 128), ("student-pretrain", 256)])
@pytest.mark.parametrize("gpus", [1, 2, 8, 16])
def test_the_global_batch_is_kept_on_any_number_of_gpus(stage, batch, gpus):
    flags = words_to_flags(build_command(Job.of(resolve(stage)), Machine(gpus=gpus))[0])
    per_device = int(flags["--per_device_train_batch_size"])
    assert per_device * int(flags["--gradient_accumulation_steps"]) * gpus == batch


def test_a_batch_that_does_not_divide_is_refused():
    done = show("distill/align_ti", NUM_GPUS="7")
    assert done.returncode == 2 and "7 processes with 4 samples each" in done.stderr and not done.stdout
    assert "4 or 2 processes (NUM_GPUS); --global_batch 112 or 140" in done.stderr


def test_an_unknown_pair_names_the_known_ones():
    done = show("distill/align_ti", PRESET="qwen9")
    assert done.returncode == 2 and "qwen9" in done.stderr
    assert all(pair in done.stderr for pair in names_in(PAIRS))


def test_flags_override_the_recipe_and_the_pair():
    done = show(
        "distill/align_ti", "--tpa_d", "8", "--learning_rate=1e-5", "--teacher_path", "/models/teacher", NUM_GPUS="8"
    )
    flags = flags_of(done)
    assert flags["--learning_rate"] == "1e-5" and flags["--teacher_path"] == "/models/teacher"
    assert flags["--tpa_d"] == "8" and done.stdout.count("--tpa_d") == 1
    pair = flags_of(show("distill/align_ti", "--pair", "qwen3-8b-1.7b", PRESET="mini", NUM_GPUS="8"))
    assert pair["--model_name_or_path"] == "Qwen/Qwen3-1.7B"


def test_launchers(tmp_path):
    """More of them in tests/align_ti/test_launch.py."""
    eight = show("distill/align_ti", NUM_GPUS="8").stdout
    assert (
        "deepspeed.launcher.runner --include localhost:0,1,2,3,4,5,6,7" in eight
        and "--deepspeed scripts/deepspeed/zero2.json" in eight
    )
    torchrun = show("distill/align_ti", NUM_GPUS="8", LAUNCHER="torchrun").stdout
    assert "torch.distributed.run" in torchrun and "--nproc_per_node 8" in torchrun
    (tmp_path / "hosts").write_text("node0 slots=8\nnode1 slots=8\n")
    hosts = {"HOSTFILE": str(tmp_path / "hosts"), "MASTER_ADDR": "node0"}
    nodes = show("distill/align_ti", NUM_GPUS="8", NUM_NODES="2", **hosts)
    assert "--hostfile" in nodes.stdout and "--gradient_accumulation_steps 2" in nodes.stdout
    assert show("distill/align_ti", NUM_GPUS="8", NUM_NODES="2").returncode != 0  # no host file
    assert show("teacher/finetune", NUM_GPUS="8").stdout.rstrip().endswith("scripts/deepspeed/zero3.json")
    assert show("distill/align_ti", NUM_GPUS="8", LAUNCHER="rocket").returncode == 2


def test_a_recipe_for_gpus_does_not_train_on_a_cpu_by_accident():
    """Whether the command is only shown or run."""
    done = run("scripts/distill/align_ti.sh", CUDA_VISIBLE_DEVICES="", NUM_GPUS="8")
    assert done.returncode == 2 and "NUM_GPUS is 8, but torch sees 0" in done.stderr and not done.stdout
    for variables in ({}, {"NUM_GPUS": "0"}):
        done = show("distill/align_ti", CUDA_VISIBLE_DEVICES="", **variables)
        assert done.returncode == 2 and "torch sees none" in done.stderr and not done.stdout
    assert "--use_cpu True" in show("distill/align_ti", NUM_GPUS="0", CPU_PROCESSES="1").stdout


def test_processes_on_a_cpu_train_together():
    """Without --use_cpu transformers sees no device to be distributed over, and each would train by itself."""
    mini = resolve("align-ti", "mini")
    one, two = (build_command(Job.of(mini), machine_for(mini, Machine(cpu_processes=n)))[0] for n in (1, 2))
    assert "torch.distributed.run" not in one and words_to_flags(two)["--nproc_per_node"] == "2"
    assert all(words_to_flags(command)["--use_cpu"] == "True" for command in (one, two))
    assert "--use_cpu" not in build_command(Job.of(resolve("align-ti")), Machine(gpus=8))[0]
    batches = [int(words_to_flags(command)["--per_device_train_batch_size"]) for command in (one, two)]
    assert batches[0] == 2 * batches[1]


def plan(recipe: Recipe, monkeypatch, **environment: str) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return " ".join(plan_of(recipe))


def test_a_plan_runs_one_process_and_takes_the_base_model_for_a_teacher_to_come(monkeypatch):
    recipe = resolve("align-ti", words=["--plan_memory_gib", "40"])
    shown = plan(recipe, monkeypatch, NUM_GPUS="16")
    assert "deepspeed.launcher" not in shown and shown.endswith("--dry_run True --plan_gpus 16")
    assert "--teacher_path Qwen/Qwen2-7B --" in shown and "--deepspeed scripts/deepspeed/zero2.json" in shown
    assert "--plan_memory_gib 40" in shown and "--use_cpu" not in shown


def test_the_plan_of_a_recipe_for_cpus_is_one_for_a_cpu(monkeypatch):
    monkeypatch.delenv("NUM_GPUS", raising=False)
    shown = plan(resolve("align-ti", "mini"), monkeypatch, CPU_PROCESSES="2")
    assert "--use_cpu True" in shown and shown.endswith("--plan_gpus 2")


@pytest.mark.parametrize(
    "recipe, pair, made, message",
    [
        ("align-ti", None, (),
         r"student-pretrain/mm_projector.bin does not exist, .*`bash scripts/student/pretrain.sh"),
        ("align-ti", None, ("student-pretrain/mm_projector.bin",),
         r"teacher does not exist, .*`bash scripts/teacher/finetune.sh --runs .*` first; or name a finished"),
        ("teacher-finetune", "mini", (), r"teacher-pretrain does not exist.*`PRESET=mini bash scripts/teacher/pret"),
        ("student-pretrain", "mini", (),
         r"student-words does not exist.*`PRESET=mini bash playground/mini/words.sh st"),
    ],
)  # fmt: skip
def test_a_stage_names_the_script_that_has_to_run_first(tmp_path, recipe, pair, made, message):
    for name in made:
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(InputError, match=message):
        check_earlier_stages(resolve(recipe, pair, ["--runs", str(tmp_path)]))


def test_models_of_the_hub_and_of_others_are_not_looked_for():
    check_earlier_stages(resolve("teacher-pretrain"))
    words = ["--teacher_path", "hub/teacher", "--pretrain_mm_mlp_adapter", "/else/where.bin"]
    check_earlier_stages(resolve("align-ti", words=words))
