"""A real process, really killed: training resumes from its newest complete checkpoint to the same losses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def start(world, output: Path) -> subprocess.Popen:
    command = [
        sys.executable, "-m", "llava.train.train", "--model_name_or_path", str(world.student_lm),
        "--vision_tower", str(world.tower), "--mm_projector_type", "mlp2x_gelu", "--data_path", str(world.data),
        "--image_folder", str(world.images), "--version", "qwen", "--output_dir", str(output), "--use_cpu", "True",
        "--report_to", "none", "--logging_steps", "1", "--save_steps", "3", "--learning_rate", "2e-3",
        "--per_device_train_batch_size", "2", "--num_train_epochs", "3", "--group_by_modality_length", "True",
        "--dataloader_pin_memory", "False",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with open(output.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def finish(world, output: Path) -> list[float]:
    process = start(world, output)
    assert process.wait(timeout=240) == 0, output.with_suffix(".log").read_text()[-3000:]
    log = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in log if "loss" in entry]


@pytest.mark.timeout(600)
def test_kill_minus_nine_and_resume(world, tmp_path):
    uninterrupted = finish(world, tmp_path / "whole")
    assert len(uninterrupted) == 36

    killed = tmp_path / "killed"
    process = start(world, killed)
    deadline = time.monotonic() + 240
    while not (killed / "checkpoint-9").exists():  # it may be half-written at this moment
        assert process.poll() is None and time.monotonic() < deadline, killed.with_suffix(".log").read_text()[-3000:]
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "trainer_state.json").exists()

    assert_resumes_to(world, killed, uninterrupted, tmp_path / "whole")

    # A scheduler's warning: the step is finished, a checkpoint written, and the exit status says it was not the end.
    told = tmp_path / "told"
    process = start(world, told)
    while "\nstep " not in (text := told.with_suffix(".log").read_text()):
        assert process.poll() is None and time.monotonic() < deadline, text[-3000:]
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    text = told.with_suffix(".log").read_text()
    assert "SIGTERM: saving a checkpoint after step" in text and not (told / "trainer_state.json").exists()
    (checkpoint,) = told.glob("checkpoint-*")
    assert int(checkpoint.name.split("-")[1]) < 36
    assert_resumes_to(world, told, uninterrupted, tmp_path / "whole")


def assert_resumes_to(world, killed, uninterrupted, whole):
    assert finish(world, killed) == pytest.approx(uninterrupted, rel=1e-6)
    assert "resuming from" in killed.with_suffix(".log").read_text()
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
