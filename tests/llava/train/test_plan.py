"""The plan against hand calculations: published parameter counts, batch and steps, memory by part."""

import json
import sys
from pathlib import Path

import pytest
from transformers import AutoConfig

from align_ti import train as distill
from llava.errors import InputError
from llava.train import train as supervised
from llava.train.arguments import DataArguments, ModelArguments
from llava.train.plan import (
    GIB,
    PlanArguments,
    memory,
    model_size,
    plan,
    plan_asked_for,
    steps,
    trained_parameters,
    zero_stage,
)

SIGLIP = "google/siglip-so400m-patch14-384"
READ = AutoConfig.from_pretrained
ZERO = {stage: str(Path(__file__).parents[3] / f"scripts/deepspeed/zero{stage}.json") for stage in (1, 2, 3)}

PUBLISHED = {
    "Qwen/Qwen2-7B": 7_615_616_512,
    "Qwen/Qwen2-1.5B": 1_543_714_304,
    "Qwen/Qwen2-0.5B": 494_032_768,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "lmsys/vicuna-7b-v1.5": 6_738_415_616,
}
"""Parameters as the models' own safetensors files add up to."""

PAIRS = [
    ("Qwen/Qwen2-7B", "Qwen/Qwen2-0.5B"),
    ("Qwen/Qwen2-7B", "Qwen/Qwen2-1.5B"),
    ("Qwen/Qwen3-8B", "Qwen/Qwen3-0.6B"),
    ("Qwen/Qwen3-8B", "Qwen/Qwen3-1.7B"),
    ("Qwen/Qwen3-4B", "Qwen/Qwen3-0.6B"),
    ("Qwen/Qwen3-1.7B", "Qwen/Qwen3-0.6B"),
    ("lmsys/vicuna-7b-v1.5", "mtgv/MobileLLaMA-1.4B-Chat"),
]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Nothing is fetched: the shapes known here are used."""
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", _read_here_only)


def _read_here_only(name, *args, **kwargs):
    if not Path(name).is_dir():
        raise OSError(f"{name} is no folder")
    return READ(name, *args, **kwargs)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_parameters_are_the_published_ones(name):
    size = model_size(name, SIGLIP, "mlp2x_gelu")
    assert size.language == PUBLISHED[name]
    hidden = size.config.hidden_size
    assert size.projector == 1152 * hidden + hidden + hidden * hidden + hidden
    assert size.tower == 428_225_600 and size.visual_tokens == 729 and size.guessed


@pytest.mark.parametrize("name", ["Qwen/Qwen2-7B-Instruct", "Qwen/Qwen2-0.5B-Instruct", "Qwen/Qwen3-8B-Base"])
def test_both_forms_of_a_model_are_known(name):
    """Base and post-trained: a preset's names can be exchanged for the others, and a plan still be made offline."""
    other = name.removesuffix("-Instruct").removesuffix("-Base")
    assert model_size(name, SIGLIP, "mlp2x_gelu").language == PUBLISHED[other]


@pytest.mark.parametrize("teacher, student", PAIRS)
@pytest.mark.parametrize("gpus", [8, 16])
def test_memory_of_every_recipe_by_hand(teacher, student, gpus):
    """ZeRO-2, bf16, checkpointing, 4 samples of 2,048 tokens a GPU; a replicated teacher whose tower is shared."""
    arguments = PlanArguments(
        per_device_train_batch_size=4, model_max_length=2048, bf16=True, gradient_checkpointing=True,
        deepspeed=ZERO[2], plan_gpus=gpus,
    )  # fmt: skip
    small, large = (model_size(name, SIGLIP, "mlp2x_gelu") for name in (student, teacher))
    trained = trained_parameters(small, ModelArguments(student), arguments)
    assert trained == small.language + small.projector
    parts = memory(small, trained, arguments, large)
    tokens, shape = 4 * 2048, small.config
    assert parts["weights"] == 2 * small.total
    assert parts["gradients"] == 2 * trained / gpus and parts["optimizer"] == 12 * trained / gpus
    inputs = shape.num_hidden_layers * tokens * shape.hidden_size * 2
    assert parts["activations"] == inputs + tokens * (10 * shape.hidden_size + 3 * shape.intermediate_size) * 2
    assert parts["teacher weights"] == 2 * (large.language + large.projector)
    assert parts["teacher weights"] / GIB == pytest.approx(2 * PUBLISHED[teacher] / GIB, rel=0.01)
    assert 3 < sum(parts.values()) / GIB < 40
    split = memory(small, trained, arguments, large, sharded=True)
    assert split["teacher weights"] == parts["teacher weights"] / gpus


def test_lora_trains_adapters_and_the_projector():
    """Qwen2-7B's adapters of rank 8 are 20,185,088 parameters, of rank 64 eight times as many."""
    size, model = model_size("Qwen/Qwen2-7B", SIGLIP, "mlp2x_gelu"), ModelArguments("x")
    arguments = PlanArguments(lora_enable=True, lora_r=64, bf16=True, deepspeed=ZERO[2], plan_gpus=8)
    trained = trained_parameters(size, model, arguments)
    assert trained == 8 * 20_185_088 + size.projector
    parts = memory(size, trained, arguments)
    assert parts["weights"] == 2 * (size.total + 8 * 20_185_088) and parts["optimizer"] == 12 * trained / 8


def test_zero_stages_divide_what_they_say():
    size, model = model_size("Qwen/Qwen2-7B", SIGLIP, "mlp2x_gelu"), ModelArguments("x")
    found = {}
    for stage in (None, 2, 3):
        arguments = PlanArguments(bf16=True, deepspeed=ZERO.get(stage), plan_gpus=8)
        found[stage] = memory(size, trained_parameters(size, model, arguments), arguments)
    trained = size.language + size.projector
    assert found[None]["weights"] == 4 * size.total and found[None]["optimizer"] == 8 * trained
    assert found[2]["weights"] == 2 * size.total and found[3]["weights"] == 2 * size.total / 8
    assert found[2]["optimizer"] == found[3]["optimizer"] == 12 * trained / 8


@pytest.mark.parametrize(
    "samples, changes, expected",
    [
        (1000, {}, 8),  # 125 a GPU, 16 micro-batches of 8, 2 a step
        (1001, {}, 8),
        (1000, {"num_train_epochs": 2.5}, 20),
        (1000, {"max_steps": 7}, 7),
        (3, {}, 1),
    ],
)
def test_steps(samples, changes, expected):
    arguments = PlanArguments(plan_gpus=8, gradient_accumulation_steps=2, **changes)
    assert steps(samples, arguments) == expected


def test_steps_are_those_that_training_takes(world, tmp_path, monkeypatch, capsys):
    flags = [
        "--model_name_or_path", str(world.student_lm), "--vision_tower", str(world.tower), "--version", "qwen",
        "--mm_projector_type", "mlp2x_gelu", "--data_path", str(world.data), "--image_folder", str(world.images),
        "--output_dir", str(tmp_path / "run"), "--per_device_train_batch_size", "5", "--num_train_epochs", "1.5",
        "--use_cpu", "True", "--report_to", "none", "--dataloader_pin_memory", "False", "--disable_tqdm", "True",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["train", *flags, "--dry_run"])
    supervised.main()
    shown = capsys.readouterr().out
    assert not (tmp_path / "run").exists() and "24 samples; one image is 4 tokens" in shown
    monkeypatch.setattr(sys, "argv", ["train", *flags])
    supervised.main()
    taken = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["global_step"]
    assert f"steps          {taken:,};" in shown
    weights = sum(p.stat().st_size for p in (tmp_path / "run").glob("model*.safetensors"))
    trained = int(shown.split("trained")[1].split(";")[0].replace(",", ""))
    assert weights == pytest.approx(4 * trained, rel=0.05)  # float32, the tower left out, and a header


def test_distillation_names_the_teacher(world, monkeypatch, capsys):
    flags = [
        "--model_name_or_path", "Qwen/Qwen2-0.5B", "--teacher_path", "Qwen/Qwen2-7B",
        "--vision_tower", SIGLIP, "--mm_projector_type", "mlp2x_gelu", "--data_path", "nowhere.json",
        "--bf16", "True", "--tf32", "True", "--deepspeed", ZERO[2], "--output_dir", "x", "--dry_run", "True",
        "--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2", "--plan_gpus", "16",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["train", *flags])
    distill.main()
    shown = capsys.readouterr().out
    assert "128 = 4 a GPU x 16 GPUs x 2 accumulation steps" in shown
    assert "teacher        Qwen/Qwen2-7B: 8.0" in shown and "not there yet: nowhere.json" in shown
    assert "fits           yes" in shown and "published configs" in shown


def test_what_does_not_fit_is_said(tmp_path):
    model = ModelArguments("Qwen/Qwen2-7B", vision_tower=SIGLIP, mm_projector_type="mlp2x_gelu")
    arguments = PlanArguments(bf16=True, deepspeed=ZERO[2], plan_gpus=8, plan_memory_gib=24)
    assert "fits           no: lower the per-device batch" in plan(model, DataArguments("none.json"), arguments)


def test_wrong_input(tmp_path):
    with pytest.raises(InputError, match="shape is not among those known"):
        model_size("nobody/nothing", SIGLIP, "linear")
    with pytest.raises(InputError, match="--vision_tower is missing"):
        model_size("Qwen/Qwen3-8B", None, "linear")
    (tmp_path / "zero.json").write_text("[]")
    with pytest.raises(InputError, match="not a DeepSpeed JSON"):
        zero_stage(str(tmp_path / "zero.json"))


@pytest.mark.parametrize(
    "argv, expected",
    [
        (["--dry_run"], True), (["--dry_run", "--bf16"], True), (["--dry_run", "True"], True),
        (["--dry_run", "False"], False), (["--dry_run=0"], False), (["--x", "1"], False),
    ],
)  # fmt: skip
def test_the_flag(argv, expected):
    assert plan_asked_for(argv) is expected
