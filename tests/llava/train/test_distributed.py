"""LLaVA's stages on two processes: losses and weights of one process, benchmarks asked in halves."""

import json
from pathlib import Path

import pytest
import torch

from tests.two_processes import ROOT, two_processes

MODES = {
    "ddp": (),
    "zero1": ("--deepspeed", str(ROOT / "scripts/deepspeed/zero1.json")),
    "zero2": ("--deepspeed", str(ROOT / "scripts/deepspeed/zero2.json")),
    "zero3": ("--deepspeed", str(ROOT / "scripts/deepspeed/zero3.json")),
}
FIXED = ("--per_device_train_batch_size", "4")
FILLED = (
    "--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2", "--max_tokens_per_batch", "110",
)  # fmt: skip


@pytest.fixture(scope="module")
def projector(world, tmp_path_factory) -> Path:
    """Weights to start from: ZeRO-3 would draw new ones in another order."""
    torch.manual_seed(1)
    file = tmp_path_factory.mktemp("projector") / "mm_projector.bin"
    sizes = {"0.weight": (32, 16), "0.bias": (32,), "2.weight": (32, 32), "2.bias": (32,)}
    torch.save({f"model.mm_projector.{name}": 0.2 * torch.randn(size) for name, size in sizes.items()}, file)
    return file


def flags(world, projector: Path, output: Path, *more: str) -> list[str]:
    return [
        "--model_name_or_path", str(world.student_lm), "--vision_tower", str(world.tower), "--mm_projector_type",
        "mlp2x_gelu", "--pretrain_mm_mlp_adapter", str(projector), "--data_path", str(world.data), "--image_folder",
        str(world.images), "--version", "qwen", "--output_dir", str(output), "--use_cpu", "True", "--report_to", "none",
        "--logging_steps", "1", "--save_strategy", "no", "--disable_tqdm", "True", "--learning_rate", "2e-3",
        "--dataloader_pin_memory", "False", "--max_steps", "3", *more,
    ]  # fmt: skip


def log_of(folder: Path) -> list[dict]:
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


@pytest.mark.parametrize(
    ("mode", "split"), [("ddp", FIXED), ("zero1", FIXED), ("ddp", FILLED), ("zero2", FILLED), ("zero3", FILLED)]
)
@pytest.mark.timeout(300)
def test_pretraining_on_two_processes_equals_one(mode, split, run, world, projector, tmp_path):
    """Stage 1 with pictures and text-only samples: one rank may have no picture in its batch. Filled to a number of
    tokens, the epoch's last step has a single sample, so that one rank has none."""
    data = tmp_path / "data.json"
    data.write_text(json.dumps(json.loads(world.data.read_text())[: 17 if split is FILLED else 24]))
    stage = ("--tune_mm_mlp_adapter", "True")
    one = run(
        tmp_path / "one", *stage, "--pretrain_mm_mlp_adapter", str(projector), "--max_steps", "3", "--learning_rate",
        "2e-3", "--per_device_train_batch_size", "8", data=data,
    )  # fmt: skip
    two_processes(
        "llava.train.train",
        *flags(world, projector, tmp_path / "two", *stage, *split, *MODES[mode], "--data_path", str(data)),
    )
    losses, expected = ([entry["loss"] for entry in log if "loss" in entry] for log in (log_of(tmp_path / "two"), one))
    assert len(expected) == 3 and losses == pytest.approx(expected, rel=1e-4)
    found, wanted = (torch.load(tmp_path / name / "mm_projector.bin", weights_only=True) for name in ("two", "one"))
    started = torch.load(projector, weights_only=True)
    assert found.keys() == wanted.keys() == started.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name].float(), weight, rtol=1e-2, atol=2e-4)
        assert not torch.equal(weight, started[name])


@pytest.mark.timeout(300)
def test_two_processes_share_a_benchmark_and_the_held_out_data(run, world, projector, benchmarks, tmp_path):
    """Scores and held-out means are those of one process, whichever rank asked what; all is learnt by heart."""
    root, images, data = benchmarks
    more = (
        "--image_folder", str(images), "--data_path", str(data), "--eval_data_path", str(data), "--eval_strategy",
        "steps", "--eval_steps", "40", "--eval_benchmarks", "gqa,pope", "--eval_benchmark_root", str(root),
        "--per_device_eval_batch_size", "2", "--max_steps", "40", "--learning_rate", "2e-2",
        "--pretrain_mm_mlp_adapter", str(projector),
    )  # fmt: skip
    one = run(tmp_path / "one", "--per_device_train_batch_size", "4", *more)
    two_processes(
        "llava.train.train", *flags(world, projector, tmp_path / "two", "--per_device_train_batch_size", "2", *more)
    )
    wanted, found = (next(entry for entry in log if "eval_gqa" in entry) for log in (one, log_of(tmp_path / "two")))
    assert wanted["eval_gqa"] >= 75
    assert found["eval_sft"] == pytest.approx(wanted["eval_sft"], rel=0.1, abs=1e-3)
    assert found["eval_gqa"] == wanted["eval_gqa"] and 0 <= found["eval_pope"] <= 100
