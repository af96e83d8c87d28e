"""What the shell scripts would run: presets, the batch arithmetic, launchers, and their refusals."""

import os
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from transformers import HfArgumentParser

from align_ti.training.arguments import DistillArguments
from llava.train.shapes import KNOWN

ROOT = Path(__file__).resolve().parents[2]
STAGES = (
    "teacher/pretrain", "teacher/finetune", "student/pretrain", "distill/sft", "distill/vanilla_kd", "distill/align_ti",
    "distill/gkd", "distill/minillm", "distill/uniform_alignment",
)  # fmt: skip
PRESETS = sorted(path.stem for path in (ROOT / "scripts/presets").glob("[!_]*.sh"))


def show(script: str, *flags: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a script with PRINT_ONLY, from another folder, as a user would."""
    variables = {"PATH": os.environ["PATH"], "HOME": "/tmp", "PRINT_ONLY": "1", "PYTHON": sys.executable, **environment}
    command = ["bash", str(ROOT / "scripts" / f"{script}.sh"), *flags]
    return subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True, timeout=60)


def flags_of(done: subprocess.CompletedProcess) -> dict[str, str]:
    """``--flag value`` pairs of the printed command; the last value of a flag counts, as it does for the parser."""
    assert done.returncode == 0, done.stderr
    return words_to_flags(done.stdout)


def words_to_flags(line: str) -> dict[str, str]:
    """``--flag value`` pairs of a command."""
    words = shlex.split(line)
    return {word: words[index + 1] for index, word in enumerate(words[:-1]) if word.startswith("--")}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_of_every_preset_prints_a_command(preset, stage):
    small = preset.startswith("mini")
    flags = flags_of(show(stage, PRESET=preset, NUM_GPUS="0" if small else "8"))
    assert flags["--model_name_or_path"] and flags["--data_path"] and flags["--vision_tower"]
    template = "qwen_bare" if small else {"vicuna-7b-mobilellama-1.4b": "v1"}.get(preset, "qwen")
    assert flags["--version"] == ("plain" if stage.endswith("pretrain") and not small else template)


MODELS = {
    "qwen2-7b-0.5b": ("Qwen/Qwen2-7B", "Qwen/Qwen2-0.5B"),
    "qwen2-7b-1.5b": ("Qwen/Qwen2-7B", "Qwen/Qwen2-1.5B"),
    "qwen3-8b-0.6b": ("Qwen/Qwen3-8B", "Qwen/Qwen3-0.6B"),
    "qwen3-8b-1.7b": ("Qwen/Qwen3-8B", "Qwen/Qwen3-1.7B"),
    "qwen3-4b-0.6b": ("Qwen/Qwen3-4B", "Qwen/Qwen3-0.6B"),
    "qwen3-1.7b-0.6b": ("Qwen/Qwen3-1.7B", "Qwen/Qwen3-0.6B"),
    "vicuna-7b-mobilellama-1.4b": ("lmsys/vicuna-7b-v1.5", "mtgv/MobileLLaMA-1.4B-Chat"),
}


def test_the_full_scale_presets_start_from_the_papers_language_models():
    """By the names that the paper prints: Qwen2 without "-Instruct", Qwen3 without "-Base"."""
    assert set(MODELS) == {preset for preset in PRESETS if not preset.startswith("mini")}
    for preset, models in MODELS.items():
        for role, model in zip(("teacher", "student"), models, strict=True):
            pretrain = flags_of(show(f"{role}/pretrain", PRESET=preset, NUM_GPUS="8"))
            assert pretrain["--model_name_or_path"] == model and pretrain["--tune_mm_mlp_adapter"] == "True"
            assert model in KNOWN, "a plan can be made without a network"
        assert flags_of(show("distill/align_ti", PRESET=preset, NUM_GPUS="8"))["--model_name_or_path"] == models[1]


def test_the_miniatures_language_models_read_words_first():
    for preset, role, base in (
        ("mini", "teacher", "playground/mini/build/models/teacher-lm"),
        ("mini-llama", "student", "playground/mini/build/models/student-llama-lm"),
        ("mini-small-teacher", "teacher", "playground/mini/build/models/teacher-small-lm"),
    ):
        done = show("../playground/mini/words", role, PRESET=preset)
        texts, answers = (words_to_flags(line) for line in done.stdout.splitlines())
        runs = "playground/mini/runs" + {"mini": "", "mini-llama": "/llama", "mini-small-teacher": "/small"}[preset]
        assert texts["--model_name_or_path"] == base and texts["--train_on_inputs"] == "1"
        assert answers["--model_name_or_path"] == texts["--output_dir"]
        assert float(answers.get("--train_on_inputs", 0)) < 0.1
        assert answers["--output_dir"] == f"{runs}/{role}-words"
        assert answers["--data_path"] == texts["--data_path"] == "playground/mini/build/words.json"
        stage = flags_of(show(f"{role}/pretrain", PRESET=preset, NUM_GPUS="0"))
        assert stage["--model_name_or_path"] == answers["--output_dir"], "stage 1 starts from it"
    done = show("../playground/mini/words", "pupil", PRESET="mini")
    assert done.returncode == 2 and "words.sh teacher|student [flags]; got 'pupil'" in done.stderr


def test_table4_runs_the_benchmark():
    flags = flags_of(show("tables/table4", PRESET="mini", CHECKPOINTS="/runs", RESULTS="/tmp/table4-out"))
    assert flags["--preset"] == "laptop" and flags["--rows_from"] == "/runs/student-align-ti"
    assert (flags["--out"], flags["--name"]) == ("/tmp/table4-out", "table4")
    flags = flags_of(show("tables/table4"))
    assert flags["--preset"] == "paper" and flags["--out"] == "checkpoints/qwen2-7b-0.5b/results"


def test_align_ti_has_the_papers_settings():
    flags = flags_of(show("distill/align_ti", NUM_GPUS="16"))
    assert flags["--losses"] == "sft,kd,iva,tpa" and flags["--tpa_d"] == "4" and flags["--iva_layer"] == "auto"
    assert flags["--learning_rate"] == "2e-5" and flags["--lr_scheduler_type"] == "cosine" and flags["--bf16"] == "True"
    assert flags["--vision_tower"] == "google/siglip-so400m-patch14-384"


@pytest.mark.parametrize(
    "script, losses, more",
    [
        ("gkd", ["sft", "kd"], {"divergence": "jsd", "jsd_beta": 0.5, "on_policy_fraction": 0.5}),
        ("minillm", ["sft", "pg"], {"on_policy_fraction": 0.5}),
        ("uniform_alignment", ["sft", "kd", "iva"], {"iva_weights": "uniform", "on_policy_fraction": 0.0}),
    ],
)
def test_the_methods_compared_with(script, losses, more):
    flags = flags_of(show(f"distill/{script}", NUM_GPUS="8"))
    known = [f"--{field.name}" for field in fields(DistillArguments)]
    given = [word for flag in flags if flag in known for word in (flag, flags[flag])]
    (arguments,) = HfArgumentParser(DistillArguments).parse_args_into_dataclasses(given)
    assert arguments.chosen_losses == losses
    assert {name: getattr(arguments, name) for name in more} == more
    assert flags["--output_dir"].endswith(f"student-{script.replace('_', '-')}")


@pytest.mark.parametrize(
    "stage, batch", [("distill/align_ti", 128), ("teacher/finetune", 128), ("student/pretrain", 256)]
)
@pytest.mark.parametrize("gpus", [1, 2, 8, 16])
def test_the_global_batch_is_kept_on_any_number_of_gpus(stage, batch, gpus):
    flags = flags_of(show(stage, NUM_GPUS=str(gpus)))
    per_device = int(flags["--per_device_train_batch_size"])
    assert per_device * int(flags["--gradient_accumulation_steps"]) * gpus == batch


def test_a_batch_that_does_not_divide_is_refused():
    done = show("distill/align_ti", NUM_GPUS="7")
    assert done.returncode == 2 and "7 processes with 4 samples each" in done.stderr and not done.stdout
    assert "4 or 2 processes (NUM_GPUS); FINETUNE_BATCH=112 or 140" in done.stderr


def test_an_unknown_preset_names_the_known_ones():
    done = show("distill/align_ti", PRESET="qwen9")
    assert done.returncode == 2 and "qwen9" in done.stderr and all(preset in done.stderr for preset in PRESETS)


def test_variables_and_flags_override_the_preset():
    done = show("distill/align_ti", "--tpa_d", "8", NUM_GPUS="8", FINETUNE_LR="1e-5", TEACHER="/models/teacher")
    flags = flags_of(done)
    assert flags["--learning_rate"] == "1e-5" and flags["--teacher_path"] == "/models/teacher"
    assert flags["--tpa_d"] == "8"


@pytest.mark.parametrize("script", ["distill/sft", "distill/align_ti"])
@pytest.mark.parametrize(
    "preset, share, epochs", [("mini", "50", 0.335), ("mini", "100", 0.67), ("qwen3-8b-0.6b", "25", 0.25)]
)
def test_a_share_of_the_data_is_a_share_of_what_the_preset_trains_on(script, preset, share, epochs):
    flags = flags_of(show(script, PRESET=preset, NUM_GPUS="8" if preset != "mini" else "0", DATA_SHARE=share))
    assert float(flags["--num_train_epochs"]) == pytest.approx(epochs)


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
    for variables in ({"NUM_GPUS": "8", "PRINT_ONLY": ""}, {}, {"NUM_GPUS": "0"}):
        done = show("distill/align_ti", CUDA_VISIBLE_DEVICES="", **variables)
        assert done.returncode == 2 and "torch sees" in done.stderr and not done.stdout
    assert "--use_cpu True" in show("distill/align_ti", NUM_GPUS="0", CPU_PROCESSES="1").stdout


def test_processes_on_a_cpu_train_together():
    """Without --use_cpu transformers sees no device to be distributed over, and each would train by itself."""
    one, two = (show("distill/align_ti", PRESET="mini", NUM_GPUS="0", CPU_PROCESSES=str(n)) for n in (1, 2))
    assert "torch.distributed.run" not in one.stdout and "--nproc_per_node 2" in two.stdout
    assert all(flags_of(done)["--use_cpu"] == "True" for done in (one, two))
    assert "--use_cpu" not in show("distill/align_ti", NUM_GPUS="8").stdout
    batches = [int(flags_of(done)["--per_device_train_batch_size"]) for done in (one, two)]
    assert batches[0] == 2 * batches[1]


def test_a_plan_runs_one_process_and_takes_the_base_model_for_a_teacher_to_come():
    shown = show("distill/align_ti", NUM_GPUS="16", DRY_RUN="1", GPU_MEMORY_GIB="40").stdout
    assert "deepspeed.launcher" not in shown and "--dry_run True --plan_gpus 16 --plan_memory_gib 40" in shown
    assert "--teacher_path Qwen/Qwen2-7B --" in shown and "--deepspeed scripts/deepspeed/zero2.json" in shown
