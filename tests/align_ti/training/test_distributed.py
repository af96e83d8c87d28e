"""Two processes give one process's losses and weights: DDP, ZeRO-2, ZeRO-3, a teacher in pieces, packing."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from align_ti.training import train as distill
from llava.model.builder import load_pretrained_model
from llava.train import train as supervised
from tests.runs import COMMON
from tests.two_processes import ROOT, two_processes

TERMS = ("loss", "sft", "kd", "iva", "tpa", "candidate_rows")

MODES = {
    "ddp": (),
    "ddp_packed": (
        "--packing",
        "True",
        "--gradient_accumulation_steps",
        "2",
        "--per_device_train_batch_size",
        "2",
        "--max_tokens_per_batch",
        "120",
    ),  # fmt: skip
    "zero2": ("--deepspeed", str(ROOT / "scripts/deepspeed/zero2.json")),
    "zero2_teacher3": ("--deepspeed", str(ROOT / "scripts/deepspeed/zero2.json"), "--teacher_zero3", "True"),
    "zero3": ("--deepspeed", str(ROOT / "scripts/deepspeed/zero3.json")),
}


@pytest.fixture(scope="module")
def student(world, tmp_path_factory) -> Path:
    """A student with a projector: a new one would be drawn differently while ZeRO-3 splits the model."""
    folder = tmp_path_factory.mktemp("student") / "student"
    patch = pytest.MonkeyPatch()
    start = [
        "--model_name_or_path", str(world.student_lm), "--vision_tower", str(world.tower), "--data_path",
        str(world.data), "--image_folder", str(world.images), "--output_dir", str(folder), "--max_steps", "1",
    ]  # fmt: skip
    patch.setattr(sys, "argv", ["train", *COMMON, *start])
    supervised.main()
    patch.undo()
    return folder


def flags(world, student, teacher, output, *more):
    return [
        "--teacher_path", str(teacher), "--model_name_or_path", str(student),
        "--vision_tower", str(world.tower), *COMMON, "--data_path", str(world.data),
        "--image_folder", str(world.images), "--output_dir", str(output), "--iva_layer", "1", "--max_steps", "3", *more,
    ]  # fmt: skip


def outcome(
    folder: Path, weights: str = "model", terms: tuple[str, ...] = TERMS
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    losses = torch.tensor([[entry.get(name, 0) for name in terms] for entry in log if "loss" in entry])
    return losses, load_file(folder / f"{weights}.safetensors")


@pytest.fixture(scope="module")
def one_process(world, student, tuned_teacher, tmp_path_factory):
    """The same run on one process with the whole batch."""
    folder = tmp_path_factory.mktemp("one") / "run"
    patch = pytest.MonkeyPatch()
    patch.setattr(
        sys, "argv", ["train", *flags(world, student, tuned_teacher, folder, "--per_device_train_batch_size", "8")]
    )
    distill.main()
    patch.undo()
    return outcome(folder)


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.timeout(300)
def test_two_processes_equal_one(mode, world, student, tuned_teacher, one_process, tmp_path):
    two_processes(
        "align_ti.training.train",
        *flags(world, student, tuned_teacher, tmp_path / "run", "--per_device_train_batch_size", "4", *MODES[mode]),
    )
    losses, weights = outcome(tmp_path / "run")
    expected, expected_weights = one_process
    assert len(expected) == 3 and (expected[:, :5] > 0).all()
    torch.testing.assert_close(losses, expected, rtol=2e-3, atol=2e-3)
    assert weights.keys() == expected_weights.keys()
    for name, wanted in expected_weights.items():
        torch.testing.assert_close(weights[name], wanted, rtol=5e-2, atol=5e-4, msg=lambda text, name=name: name + text)


@pytest.mark.timeout(300)
def test_float16_keeps_a_small_gradient(world, student, tuned_teacher, tmp_path, monkeypatch):
    """IVA alone, with the small weights that it has in a large batch, as DeepSpeed trains in float16: the gradient of
    the first step is float32's."""
    more = ("--losses", "iva", "--iva_weight", "1e-3", "--per_device_train_batch_size", "4")
    monkeypatch.setattr(sys, "argv", ["train", *flags(world, student, tuned_teacher, tmp_path / "one", *more)])
    distill.main()
    arguments = flags(world, student, tuned_teacher, tmp_path / "two", *more, *MODES["zero2"], "--fp16", "True")
    two_processes("align_ti.training.train", *arguments, "--per_device_train_batch_size", "2")
    wanted, found = (
        json.loads((tmp_path / name / "trainer_state.json").read_text())["log_history"][0] for name in ("one", "two")
    )
    assert wanted["grad_norm"] > 0
    assert found["iva"] == pytest.approx(wanted["iva"], rel=0.02)
    assert found["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=0.02)


@pytest.mark.parametrize(
    ("more", "shared"), [((), True), (("--teacher_zero3", "True"), True), (("--teacher_zero3", "True"), False)]
)
@pytest.mark.timeout(300)
def test_equal_towers_in_pieces_are_shared_and_others_are_not(more, shared, world, student, tuned_teacher, tmp_path):
    """The teacher's tower is a copy under another path; in the last case one of its numbers is another one."""
    teacher = Path(shutil.copytree(tuned_teacher, tmp_path / "teacher"))
    if not shared:
        file = teacher / "vision_tower/model.safetensors"
        weights = load_file(file)
        next(tensor for name, tensor in weights.items() if "layers.1.mlp.fc2.bias" in name)[-1] += 0.01
        save_file(weights, file, {"format": "pt"})
    log = two_processes(
        "align_ti.training.train",
        *flags(world, student, teacher, tmp_path / "run", "--per_device_train_batch_size", "4", *MODES["zero3"], *more),
        "--max_steps", "1",
    )  # fmt: skip
    assert ("share one vision tower" in log) == shared
    assert ("their weights differ, first in encoder.layers.1.mlp.fc2.bias" in log) != shared
    (tmp_path / "run").rename(tmp_path / "moved")
    assert json.loads((tmp_path / "moved/config.json").read_text())["mm_vision_tower"] == "vision_tower"
    load_pretrained_model(tmp_path / "moved")


@pytest.mark.parametrize("mode", ["ddp", "zero3"])
@pytest.mark.timeout(300)
def test_the_methods_compared_with(mode, world, student, tuned_teacher, tmp_path, monkeypatch):
    """The student's attention at drawn visual tokens, relations, its responses and their policy gradient: as on one."""
    terms = ("loss", "sft", "kd", "iva", "rel", "pg", "reverse_kl", "on_policy")
    more = (
        "--losses", "sft,kd,iva,rel,pg", "--iva_weights", "student", "--iva_rows", "2", "--on_policy_fraction", "0.5",
        "--on_policy_max_new_tokens", "5", "--seed", "7",
    )  # fmt: skip
    whole = flags(world, student, tuned_teacher, tmp_path / "one", "--per_device_train_batch_size", "8", *more)
    monkeypatch.setattr(sys, "argv", ["train", *whole])
    distill.main()
    halves = flags(world, student, tuned_teacher, tmp_path / "two", "--per_device_train_batch_size", "4", *more)
    two_processes("align_ti.training.train", *halves, *MODES[mode])
    (expected, wanted), (losses, found) = (outcome(tmp_path / name, terms=terms) for name in ("one", "two"))
    assert expected[:, -1].tolist() == [1, 0, 0] and (expected[:, 2:5] > 0).all() and expected[0, 6] > 0
    torch.testing.assert_close(losses, expected, rtol=2e-3, atol=2e-3)
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=5e-2, atol=5e-4, msg=lambda text, name=name: name + text)


@pytest.mark.timeout(300)
def test_adapters_under_zero3_equal_one_process(world, student, tuned_teacher, tmp_path, monkeypatch):
    """LoRA on a student in pieces, from one adapter (ZeRO-3 would draw a fresh one in another order)."""
    lora = ("--lora_enable", "True", "--lora_r", "4", "--lora_alpha", "8", "--lora_dropout", "0")

    def one_process(name: str, *more: str) -> Path:
        arguments = flags(world, student, tuned_teacher, tmp_path / name, "--per_device_train_batch_size", "8")
        monkeypatch.setattr(sys, "argv", ["train", *arguments, *lora, *more])
        distill.main()
        return tmp_path / name

    start = ("--lora_weight_path", str(one_process("start")))
    one_process("one", *start)
    halves = flags(world, student, tuned_teacher, tmp_path / "two", "--per_device_train_batch_size", "4", *lora)
    two_processes("align_ti.training.train", *halves, *start, *MODES["zero3"])
    (expected, wanted), (losses, found) = (outcome(tmp_path / name, "adapter_model") for name in ("one", "two"))
    torch.testing.assert_close(losses, expected, rtol=2e-3, atol=2e-3)
    assert wanted.keys() == found.keys() and len(wanted) == 2 * 7 * 2
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=5e-2, atol=5e-4, msg=lambda text, name=name: name + text)
