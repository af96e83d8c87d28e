"""A disk that takes no more, and a loss that is no number: a clear end, and the good checkpoints kept."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from llava.errors import InputError
from llava.train import train
from llava.train.interruptions import StopOnSignal, checkpoint_writing
from llava.train.trainer import LlavaTrainer

ROOT = Path(__file__).resolve().parents[3]


def flags(world, output, *more):
    return [
        "--model_name_or_path", str(world.student_lm), "--vision_tower", str(world.tower),
        "--mm_projector_type", "mlp2x_gelu", "--data_path", str(world.data), "--image_folder", str(world.images),
        "--version", "qwen", "--output_dir", str(output), "--use_cpu", "True", "--report_to", "none",
        "--logging_steps", "1", "--save_steps", "2", "--per_device_train_batch_size", "4", "--max_steps", "6",
        "--dataloader_pin_memory", "False", "--disable_tqdm", "True", *more,
    ]  # fmt: skip


def train_with_small_files(world, output, limit: int) -> subprocess.CompletedProcess[str]:
    """A limit on the size of files, in bytes, stands in for the full disk: the same call fails, at the same place."""
    return subprocess.run(
        [sys.executable, "-m", "llava.train.train", *flags(world, output)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip


def test_a_disk_that_takes_no_tower(world, tmp_path):
    done = train_with_small_files(world, tmp_path / "run", 60_000)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "the copy of the vision tower" in done.stderr and "GiB free on its disk" in done.stderr


def test_a_disk_that_takes_no_more(world, tmp_path):
    done = train_with_small_files(world, tmp_path / "run", 100_000)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "checkpoint-2 could not be written" in done.stderr and "GiB free on its disk" in done.stderr
    assert "Kept: none" in done.stderr and "resumes from the newest complete checkpoint" in done.stderr
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_the_broken_checkpoint_goes_and_the_good_one_stays(tmp_path):
    (tmp_path / "checkpoint-2").mkdir()
    broken = tmp_path / "checkpoint-4"
    with pytest.raises(InputError, match=r"checkpoint-4 could not be written \(\[Errno 28\] .*Kept: checkpoint-2\."):
        with checkpoint_writing(broken):
            broken.mkdir()
            (broken / "model.safetensors").write_bytes(b"half")
            raise OSError(28, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]


def test_no_checkpoint_is_written_once_the_loss_is_no_number(world, tmp_path, monkeypatch):
    """Logging is rarer than saving here: it is the saving that notices."""
    whole = LlavaTrainer.micro_batch_loss

    def blown_up(self, model, inputs, counts):
        loss, terms, outputs = whole(self, model, inputs, counts)
        bad = float("nan") if self.state.global_step >= 3 else 1.0
        return loss * bad, {name: term * bad for name, term in terms.items()}, outputs

    monkeypatch.setattr(LlavaTrainer, "micro_batch_loss", blown_up)
    monkeypatch.setattr(sys, "argv", ["train", *flags(world, tmp_path, "--logging_steps", "100")])
    with pytest.raises(InputError, match="step 4: the loss term 'sft' is nan. Lower --learning_rate"):
        train.main()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


def test_signals_are_listened_to_during_training_only(tmp_path):
    before = signal.getsignal(signal.SIGUSR1)
    stop, arguments = StopOnSignal(), TrainingArguments(str(tmp_path), use_cpu=True)
    state, control = TrainerState(), TrainerControl()
    stop.on_train_begin(arguments, state, control)
    stop.on_step_end(arguments, state, control)
    assert not control.should_training_stop and not control.should_save
    os.kill(os.getpid(), signal.SIGUSR1)
    stop.on_step_end(arguments, state, control)
    assert control.should_training_stop and control.should_save and stop.name == "SIGUSR1"
    stop.on_train_end(arguments, state, control)
    assert signal.getsignal(signal.SIGUSR1) == before
