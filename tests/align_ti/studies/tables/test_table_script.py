"""One table from its command to its files, with real trainings and evaluations of the smallest size: Table 9, whose
rows have a teacher each."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from llava.eval.registry import BENCHMARKS

ROOT = Path(__file__).resolve().parents[4]


@dataclass(frozen=True)
class Setting:
    """What the table needs, with teachers of the smallest size."""

    checkpoints: Path
    out: Path
    teachers: dict[str, Path]
    flags: list[str]

    def start(self, *flags: str) -> subprocess.Popen:
        """In a session of its own, as a terminal does."""
        command = ["bash", str(ROOT / "scripts/align-ti.sh"), "table", "table9", "--seeds", "1"]
        environment = {**os.environ, "PYTHON": sys.executable, "PRESET": "mini", "NUM_GPUS": "0", "CPU_PROCESSES": "1"}
        return subprocess.Popen(
            [*command, "--out", str(self.out), *self.flags, *flags], env=environment, cwd="/", text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def table(self, *flags: str) -> subprocess.CompletedProcess:
        process = self.start(*flags)
        out, err = process.communicate(timeout=380)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def setting(world, tuned_teacher, mini_data, tmp_path) -> Setting:
    checkpoints = tmp_path / "runs"
    (checkpoints / "student-pretrain").mkdir(parents=True)
    sizes = {"0.weight": (32, 16), "0.bias": (32,), "2.weight": (32, 32), "2.bias": (32,)}
    projector = {f"model.mm_projector.{name}": 0.1 * torch.ones(size) for name, size in sizes.items()}
    torch.save(projector, checkpoints / "student-pretrain" / "mm_projector.bin")
    teachers = {"small": tmp_path / "small", "large": tuned_teacher}
    shutil.copytree(tuned_teacher, teachers["small"])
    flags = [
        "--runs", str(checkpoints), "--data_root", str(mini_data), "--jobs", "2",
        "--teachers", *(f"{name}={path}" for name, path in teachers.items()),
        "--model_name_or_path", str(world.student_lm), "--vision_tower", str(world.tower),
        "--pretrain_mm_mlp_adapter", str(checkpoints / "student-pretrain" / "mm_projector.bin"),
        "--data_path", str(world.data), "--image_folder", str(world.images), "--version", "qwen",
        "--global_batch", "8", "--image_aspect_ratio", "square",  # as the teacher was tuned
    ]  # fmt: skip
    return Setting(checkpoints, tmp_path / "out", teachers, flags)


@pytest.mark.timeout(400)
def test_two_students_trained_evaluated_and_tabulated(setting):
    """The scores of a teacher that was evaluated are on top."""
    checkpoints, table = setting.checkpoints, setting.table
    scores = setting.teachers["small"] / "eval"
    scores.mkdir()
    for name in (*BENCHMARKS, "scores"):
        (scores / f"{name}.json").write_text('{"score": 12.5}')
    done = table("--seed", "3")
    assert done.returncode == 2 and "--seed is set by the rows of this table" in done.stderr
    done = table("--iva_layers", "1")
    assert done.returncode == 2 and "unknown flag --iva_layers; did you mean --iva_layer?" in done.stderr
    done = table("--max_steps", "2", "--logging_steps", "1")
    assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads((setting.out / "table9.json").read_text())
    assert [row["name"] for row in content["rows"]] == ["sft+kd+iva+tpa@small", "sft+kd+iva+tpa@large"]
    assert all(set(row["scores"]) == set(BENCHMARKS) for row in content["rows"])
    assert all(len(row["held_out"]) == 1 and 0 < row["held_out"][0] < 20 for row in content["rows"])
    assert "2 students, 0 of them already finished" in done.stderr
    assert content["teachers"] == {"small teacher": dict.fromkeys(BENCHMARKS, 12.5)}
    for name, teacher in setting.teachers.items():
        model = checkpoints / f"tables/sft+kd+iva+tpa@{name}/seed0/model"
        state = json.loads((model / "trainer_state.json").read_text())
        assert {"sft", "kd", "iva", "tpa"} <= set(state["log_history"][0])
        assert json.loads((model / "run_config.json").read_text())["distill"]["teacher_path"] == str(teacher)
    assert done.stdout.startswith("# Teachers of several sizes") and "| Align-TI, small teacher | " in done.stdout
    again = table("--max_steps", "3", "--report-only")
    assert again.returncode == 2 and "different settings: its max_steps is '2', now it would be '3'" in again.stderr
    again = table("--max_steps", "2", "--logging_steps", "1")
    assert again.returncode == 0 and "2 students, 2 of them already finished" in again.stderr
    assert not list((checkpoints / "tables").rglob("checkpoint-*"))
    shutil.rmtree(checkpoints / "tables")
    again = table("--max_steps", "2", "--logging_steps", "1")
    assert again.returncode == 0 and "2 students, 2 of them already finished" in again.stderr, "their records are kept"
    assert json.loads((setting.out / "table9.json").read_text())["rows"] == content["rows"]


@pytest.mark.timeout(200)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_in_the_middle(setting, number, status):
    """Both trainings save a checkpoint and are gone when the table is; nothing else is begun, nothing is finished."""
    process = setting.start("--max_steps", "100000", "--logging_steps", "1")
    students = [setting.checkpoints / f"tables/sft+kd+iva+tpa@{name}/seed0" for name in setting.teachers]
    until = time.monotonic() + 120
    while not all((log := folder / "train.log").exists() and "\nstep " in log.read_text() for folder in students):
        assert process.poll() is None and time.monotonic() < until, process.stderr.read()[-3000:]
        time.sleep(0.1)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=100)
    assert process.returncode == status and "stopping; trainings save a checkpoint first" in said
    assert "Traceback" not in said
    for folder in students:
        assert list((folder / "model").glob("checkpoint-*")) and not (folder / "record.json").exists()
        with open(folder / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
