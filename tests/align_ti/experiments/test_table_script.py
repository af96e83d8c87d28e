"""One table from its script to its files, with real trainings and evaluations of the smallest size: Table 9, whose rows
have a teacher each."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llava.eval.registry import BENCHMARKS
from playground.mini.build import BuildConfig, build

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.timeout(400)
def test_two_students_trained_evaluated_and_tabulated(world, tuned_teacher, tmp_path):
    build(tmp_path / "mini", BuildConfig(2, 1, 2, 10, 1, held_out_scenes=3, eval_scale=0.02))
    checkpoints = tmp_path / "runs"
    (checkpoints / "student-pretrain").mkdir(parents=True)
    sizes = {"0.weight": (32, 16), "0.bias": (32,), "2.weight": (32, 32), "2.bias": (32,)}
    projector = {f"model.mm_projector.{name}": 0.1 * torch.ones(size) for name, size in sizes.items()}
    torch.save(projector, checkpoints / "student-pretrain" / "mm_projector.bin")
    small = tmp_path / "small"
    shutil.copytree(tuned_teacher, small)
    environment = {
        **os.environ, "PRESET": "mini", "PYTHON": sys.executable, "MINI": str(tmp_path / "mini"), "PRETRAIN_FULL": "",
        "CHECKPOINTS": str(checkpoints), "TEACHERS": f"small={small} large={tuned_teacher}",
        "STUDENT_LM": str(world.student_lm), "VISION_TOWER": str(world.tower), "NUM_GPUS": "0",
        "STUDENT_FINETUNE_DATA": str(world.data),
        "STUDENT_FINETUNE_IMAGES": str(world.images), "TEMPLATE": "qwen", "CPU_PROCESSES": "1", "FINETUNE_BATCH": "8",
    }  # fmt: skip

    def table(*flags: str) -> subprocess.CompletedProcess:
        command = ["bash", str(ROOT / "scripts/tables/table9.sh"), "--seeds", "1", "--out", str(tmp_path / "out")]
        return subprocess.run(
            [*command, *flags], env=environment, cwd="/", capture_output=True, text=True, timeout=380
        )  # fmt: skip

    done = table("--iva_layers", "1")
    assert done.returncode == 2 and "--iva_layers" in done.stderr, "an unknown flag: the log's end says so"
    done = table("--max_steps", "2", "--logging_steps", "1")
    assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads((tmp_path / "out" / "table9.json").read_text())
    assert [row["name"] for row in content["rows"]] == ["sft+kd+iva+tpa@small", "sft+kd+iva+tpa@large"]
    assert all(set(row["scores"]) == set(BENCHMARKS) for row in content["rows"])
    assert all(len(row["held_out"]) == 1 and 0 < row["held_out"][0] < 20 for row in content["rows"])
    assert "2 students, 0 of them finished before" in done.stderr
    for name, teacher in (("small", small), ("large", tuned_teacher)):
        model = checkpoints / f"tables/sft+kd+iva+tpa@{name}/seed0/model"
        state = json.loads((model / "trainer_state.json").read_text())
        assert {"sft", "kd", "iva", "tpa"} <= set(state["log_history"][0])
        assert json.loads((model / "run_config.json").read_text())["distill"]["teacher_path"] == str(teacher)
    assert done.stdout.startswith("# Teachers of several sizes") and "| Align-TI, small teacher | " in done.stdout
    again = table("--max_steps", "2")
    assert again.returncode == 2 and "made otherwise: its flags is '--losses" in again.stderr
    again = table("--max_steps", "2", "--logging_steps", "1")
    assert again.returncode == 0 and "2 students, 2 of them finished before" in again.stderr
    assert not list((checkpoints / "tables").rglob("checkpoint-*"))
    shutil.rmtree(checkpoints / "tables")
    again = table("--max_steps", "2", "--logging_steps", "1")
    assert again.returncode == 0 and "2 students, 2 of them finished before" in again.stderr, "their records are kept"
    assert json.loads((tmp_path / "out" / "table9.json").read_text())["rows"] == content["rows"]
