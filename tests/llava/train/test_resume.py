"""A run's folder given again: the same run resumes or is finished, another one is rejected and changes nothing."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from llava.errors import InputError
from llava.train.run_folder import find_checkpoint, finished_steps
from llava.train.run_lock import run_lock
from llava.train.run_record import RECORD_FILE, differences

SAVING = ("--save_strategy", "steps", "--save_steps", "2", "--per_device_train_batch_size", "4")


def state_of(folder: Path) -> dict[str, str]:
    """Every file of a run with the hash of its contents, the lock aside."""
    return {
        str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.lock"
    }


@pytest.fixture
def finished(run, tmp_path):
    run(tmp_path / "run", *SAVING)
    return tmp_path / "run"


def test_a_finished_run_given_again_changes_nothing(run, finished, caplog):
    before = state_of(finished)
    assert finished_steps(finished) == (6, 6)
    caplog.set_level("INFO")
    for _ in range(2):
        run(finished, *SAVING)
    assert "already finished, 6 of 6 steps" in caplog.text
    assert state_of(finished) == before


def test_other_settings_are_listed_and_refused(run, finished):
    """Old weights must not carry new settings, and more steps must not be trained one at a time."""
    before = state_of(finished)
    for flags, words in (
        (
            ("--learning_rate", "1e-4", "--max_steps", "9"),
            ("learning_rate was 0.001, now it is 0.0001", "max_steps was -1"),
        ),
        (("--per_device_train_batch_size", "2"), ("global_batch was 4, now it is 2",)),
        (("--mm_projector_type", "linear", "--version", "v1"), ("mm_projector_type", "version was qwen, now it is v1")),
    ):
        with pytest.raises(InputError) as error:
            run(finished, *SAVING, *flags)
        assert all(word in str(error.value) for word in words), error.value
        assert "--resume never" in str(error.value) and str(finished) in str(error.value)
    assert state_of(finished) == before


def test_what_may_differ(run, finished, caplog):
    """Another split of the global batch, logging, saving and devices train the same model."""
    before = state_of(finished)
    caplog.set_level("INFO")
    flags = ("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2", "--logging_steps", "3")
    run(finished, *SAVING, *flags, "--save_steps", "5", "--dataloader_num_workers", "1")
    assert "already finished" in caplog.text and state_of(finished) == before


def test_data_that_were_edited_are_other_data(run, finished, world, tmp_path):
    moved, edited = tmp_path / "moved.json", tmp_path / "edited.json"
    shutil.copy(world.data, moved)
    run(finished, *SAVING, data=moved)
    text = world.data.read_text()
    edited.write_text(text.replace("goat", "boat"))
    with pytest.raises(InputError, match="data_path was"):
        run(finished, *SAVING, data=edited)
    shutil.copy(edited, moved)
    with pytest.raises(InputError, match="data_path was"):
        run(finished, *SAVING, data=moved)


def test_starting_over_moves_the_earlier_run_aside(run, finished):
    """Its checkpoints would be the newest ones otherwise, and be resumed from or crowd out the new ones."""
    weights = (finished / "model.safetensors").read_bytes()
    run(finished, *SAVING, "--learning_rate", "1e-2", "--resume", "never", "--max_steps", "2")
    assert sorted(path.name for path in finished.glob("checkpoint-*")) == ["checkpoint-2"]
    aside = finished / "earlier-run-1"
    assert (aside / "model.safetensors").read_bytes() == weights and (aside / "checkpoint-6").is_dir()
    assert json.loads((finished / RECORD_FILE).read_text())["training"]["learning_rate"] == 0.01
    assert json.loads((aside / RECORD_FILE).read_text())["training"]["learning_rate"] == 0.001


def test_going_on_from_a_named_checkpoint_with_other_settings(run, finished, caplog):
    log = run(finished, *SAVING, "--resume", str(finished / "checkpoint-2"), "--learning_rate", "1e-4")
    record = json.loads((finished / RECORD_FILE).read_text())
    assert record["training"]["learning_rate"] == 1e-4 and record["resumed"][0]["checkpoint"].endswith("checkpoint-2")
    assert record["changed"] == ["learning_rate was 0.001, now it is 0.0001"] and record["changed"][0] in caplog.text
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3, 4, 5, 6]
    assert (finished / "earlier-run-1" / "checkpoint-6").is_dir(), "what was trained after it is of another run"


def test_a_resumed_run_keeps_its_record_and_tells_who_resumed_it(run, tmp_path):
    out = tmp_path / "run"
    run(out, *SAVING)
    first = json.loads((out / RECORD_FILE).read_text())
    (out / "model.safetensors").unlink()  # a kill before the end
    shutil.rmtree(out / "checkpoint-6")
    run(out, *SAVING, "--logging_steps", "2")
    again = json.loads((out / RECORD_FILE).read_text())
    (entry,) = again.pop("resumed")
    assert again == first and entry["checkpoint"].endswith("checkpoint-4") and entry["command"]


def test_a_run_killed_after_its_last_checkpoint_trains_no_further_step(run, finished):
    weights = (finished / "model.safetensors").read_bytes()
    shutil.rmtree(finished / "checkpoint-2")
    (finished / "model.safetensors").unlink()
    (finished / "trainer_state.json").unlink()
    run(finished, *SAVING)
    assert json.loads((finished / "trainer_state.json").read_text())["global_step"] == 6
    assert (finished / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize("broken", ["model.safetensors", "optimizer.pt", "trainer_state.json"])
def test_a_truncated_checkpoint_is_passed_over(run, tmp_path, caplog, broken):
    """The one before is complete; the run resumes from it and says why."""
    out = tmp_path / "run"
    expected = [entry["loss"] for entry in run(out, *SAVING) if "loss" in entry]
    (out / "model.safetensors").unlink()
    shutil.rmtree(out / "checkpoint-6")
    file = out / "checkpoint-4" / broken
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    found = [entry["loss"] for entry in run(out, *SAVING) if "loss" in entry]
    assert found == pytest.approx(expected, rel=1e-6)
    assert "skipping" in caplog.text and broken in caplog.text and "checkpoint-4" in caplog.text


def test_checkpoints_without_a_record_cannot_be_compared(run, finished):
    (finished / RECORD_FILE).unlink()
    with pytest.raises(InputError, match="no run_config.json.*--resume never"):
        run(finished, *SAVING)
    assert find_checkpoint(finished, "auto") == str(finished / "checkpoint-6")


def test_one_owner_a_folder(run, tmp_path):
    out = tmp_path / "run"
    with run_lock(out), pytest.raises(InputError, match="is in use: process .* on this machine"):
        run(out, *SAVING)
    assert not (out / RECORD_FILE).exists()
    run(out, *SAVING, "--max_steps", "1")  # free again


def test_processes_that_were_not_counted_are_refused(run, tmp_path):
    with pytest.raises(InputError, match="global batch would be 4 instead of 16"):
        run(tmp_path / "run", "--per_device_train_batch_size", "4", "--expected_processes", "4")
    assert not (tmp_path / "run").exists()


def test_evaluation_without_data_is_refused_before_models_are_loaded(run, tmp_path):
    with pytest.raises(InputError, match="needs --eval_data_path"):
        run(tmp_path / "run", "--eval_strategy", "steps", "--eval_steps", "2")


def test_settings_that_an_older_record_lacks_count_at_their_default():
    before = {"stage": "supervised", "training": {"learning_rate": 1.0}}
    asked = {"stage": "supervised", "training": {"learning_rate": 1.0, "new_flag": 3}}
    assert [str(found) for found in differences(before, asked, defaults={"new_flag": 2})] == [
        "new_flag was 2, now it is 3"
    ]
    assert not differences(before, asked, defaults={"new_flag": 3})
    (other,) = differences(before, {**asked, "stage": "distillation"}, defaults={"new_flag": 3})
    assert other.name == "stage"
