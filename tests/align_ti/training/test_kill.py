"""The distillation as a real process, killed again and again at random moments: the curve is that of a quiet run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runs import COMMON

ROOT = Path(__file__).resolve().parents[3]
KILLS = int(os.environ.get("ALIGN_TI_KILLS", "2"))
"""How often; set ALIGN_TI_KILLS for a longer trial."""


def start(world, teacher: Path, output: Path) -> subprocess.Popen:
    command = [
        sys.executable, "-m", "align_ti.training.train", "--teacher_path", str(teacher), "--model_name_or_path",
        str(world.student_lm), "--vision_tower", str(world.tower), *COMMON, "--data_path", str(world.data),
        "--image_folder", str(world.images), "--output_dir", str(output), "--iva_layer", "1",
        "--per_device_train_batch_size", "2", "--num_train_epochs", "3", "--group_by_modality_length", "True",
        "--save_strategy", "steps", "--save_steps", "2", "--save_total_limit", "2",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with open(output.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def curve(output: Path) -> list[dict[str, float]]:
    log = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [{name: entry[name] for name in ("loss", "sft", "kd", "iva", "tpa")} for entry in log if "tpa" in entry]


@pytest.mark.timeout(600)
def test_killed_at_random_moments(world, tuned_teacher, tmp_path):
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    assert start(world, tuned_teacher, quiet).wait(timeout=200) == 0, quiet.with_suffix(".log").read_text()[-3000:]
    log = killed.with_suffix(".log")
    seed = time.time_ns()
    rng = random.Random(seed)
    kills = 0
    while kills < KILLS:
        before = log.read_text().count("\nstep ") if log.exists() else 0
        process = start(world, tuned_teacher, killed)
        deadline = time.monotonic() + 120
        while log.read_text().count("\nstep ") == before and process.poll() is None:
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.6))  # steps of some 20 ms and a checkpoint every second one
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break
        kills += 1
        assert len(list(killed.glob("checkpoint-*"))) <= 3, "two are kept, and one is being written"
    assert kills, f"seed {seed}: it was over before it could be killed"
    assert start(world, tuned_teacher, killed).wait(timeout=200) == 0, log.read_text()[-3000:]
    expected, found = curve(quiet), curve(killed)
    assert len(expected) == len(found) == 36, f"seed {seed}"
    for one, other in zip(expected, found, strict=True):
        assert other == pytest.approx(one, rel=1e-6), f"seed {seed}"
    assert (killed / "model.safetensors").read_bytes() == (quiet / "model.safetensors").read_bytes(), f"seed {seed}"
