"""Stages 1 and 2 on a tiny world: what is trained, what is saved, resumption, and batch splits."""

import json
import shutil
from functools import wraps

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from llava.errors import InputError
from llava.model import language_model_class


def losses(log: list[dict]) -> list[float]:
    return [entry["loss"] for entry in log if "loss" in entry]


def test_accumulation_does_not_change_the_training(run, tmp_path):
    whole = run(tmp_path / "a", "--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "1")
    split = run(tmp_path / "b", "--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "4")
    assert len(losses(whole)) == 3
    assert losses(split) == pytest.approx(losses(whole), rel=1e-5)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    for name in one:
        assert torch.allclose(one[name], other[name], atol=2e-5), name


def test_loss_is_the_mean_over_the_tokens_of_the_whole_batch(run, tmp_path, world):
    """Two samples of very different lengths, one each micro-batch: long answers count by their tokens."""
    entries = json.loads(world.data.read_text())
    entries = [
        entries[0],
        {**entries[1], "conversations": [entries[1]["conversations"][0], {"from": "gpt", "value": "No."}]},
    ]
    data = tmp_path / "two.json"
    data.write_text(json.dumps(entries))
    flags = ("--learning_rate", "0", "--max_steps", "1")
    together = run(tmp_path / "a", "--per_device_train_batch_size", "2", *flags, data=data)
    apart = run(
        tmp_path / "b",
        "--per_device_train_batch_size",
        "1",
        "--gradient_accumulation_steps",
        "2",
        *flags,
        data=data,
    )
    assert losses(apart) == pytest.approx(losses(together), rel=1e-5)
    assert apart[0]["sft"] == pytest.approx(apart[0]["loss"], rel=1e-5)


def test_pretraining_trains_the_projector_alone_and_saves_what_llava_saves(run, tmp_path, world):
    out = tmp_path / "pretrain"
    run(
        out,
        "--version",
        "plain",
        "--tune_mm_mlp_adapter",
        "True",
        "--per_device_train_batch_size",
        "4",
        data=world.captions,
    )
    weights = torch.load(out / "mm_projector.bin", weights_only=True)
    assert set(weights) == {f"model.mm_projector.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    assert json.loads((out / "config.json").read_text())["model_type"] == "llava_qwen2"
    assert not list(out.glob("*.safetensors"))
    record = json.loads((out / "run_config.json").read_text())
    assert record["model"]["tune_mm_mlp_adapter"] is True and record["versions"]["torch"]

    tuned = tmp_path / "finetune"
    run(
        tuned,
        "--pretrain_mm_mlp_adapter",
        str(out / "mm_projector.bin"),
        "--max_steps",
        "1",
        "--learning_rate",
        "0",
    )
    saved = load_file(tuned / "model.safetensors")
    for name, value in weights.items():
        assert torch.equal(saved[name], value), name
    assert not any("vision_tower" in name for name in saved)


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_run_killed_half_way_resumes_to_the_same_losses(run, tmp_path, world, stage):
    """The second half, from a checkpoint, equals the second half of the uninterrupted run."""
    flags = [
        "--per_device_train_batch_size",
        "4",
        "--save_strategy",
        "steps",
        "--save_steps",
        "2",
        "--learning_rate",
        "2e-3",
    ]
    data = world.data
    if stage == "pretrain":
        flags += ["--version", "plain", "--tune_mm_mlp_adapter", "True"]
        data = world.captions
    else:
        flags += ["--group_by_modality_length", "True"]
    out = tmp_path / "run"
    uninterrupted = losses(run(out, *flags, data=data))
    result = "mm_projector.bin" if stage == "pretrain" else "model.safetensors"
    final = (out / result).read_bytes()

    steps = sorted(int(folder.name.split("-")[1]) for folder in out.glob("checkpoint-*"))
    assert steps[0] == 2 and len(steps) >= 2
    for step in steps[1:]:  # what a kill between the two saves leaves: one checkpoint, and half of another
        shutil.rmtree(out / f"checkpoint-{step}")
    half = out / "checkpoint-4"
    half.mkdir()
    (half / "trainer_state.json").write_text('{"global_step": 4')
    (out / result).unlink()

    resumed = losses(run(out, *flags, data=data))
    assert resumed == pytest.approx(uninterrupted, rel=1e-6)
    if stage == "finetune":
        assert (out / result).read_bytes() == final


def test_a_finished_model_loads_as_the_trained_one(run, tmp_path, world):
    run(tmp_path / "out", "--per_device_train_batch_size", "8", "--max_steps", "1")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    saved = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(model.model.embed_tokens.weight, saved["model.embed_tokens.weight"])
    assert model.get_vision_tower().is_loaded


def test_wrong_arguments_are_named(run, tmp_path, world):
    with pytest.raises(InputError, match="vicuna_v9.*(plain|qwen)"):
        run(tmp_path / "a", "--version", "vicuna_v9")
    with pytest.raises(InputError, match="no_such_model"):
        run(tmp_path / "b", "--model_name_or_path", str(tmp_path / "no_such_model"))
    with pytest.raises(InputError, match="--bits 4"):
        run(tmp_path / "c", "--bits", "4")
    with pytest.raises(InputError, match="complete checkpoint"):
        run(tmp_path / "d", "--resume", str(tmp_path))


def test_a_batch_that_nothing_supervises_says_so(run, tmp_path, world):
    """Every target lies beyond the length limit: an error for the sample, named."""
    with pytest.raises(InputError, match="(?s)model_max_length|target"):
        run(tmp_path / "a", "--model_max_length", "20", "--per_device_train_batch_size", "4")


def test_bad_samples_are_errors_or_skipped_and_counted(run, tmp_path, world):
    entries = json.loads(world.data.read_text())
    entries[3]["image"] = "gone.png"
    data = tmp_path / "broken.json"
    data.write_text(json.dumps(entries))
    with pytest.raises(InputError, match="images checked are missing.*gone.png"):
        run(tmp_path / "a", "--per_device_train_batch_size", "8", data=data)
    log = run(tmp_path / "b", "--per_device_train_batch_size", "8", "--on_bad_sample", "skip", data=data)
    assert max(entry.get("bad_samples", 0) for entry in log) == 1


def test_the_model_gets_what_it_reads_and_no_more(run, tmp_path, world, monkeypatch):
    """In training and in evaluation; what is in a batch for others, such as the samples' numbers, stays outside."""
    model_class = language_model_class("qwen2")
    forward, seen = model_class.forward, set()

    @wraps(forward)
    def recorded(self, *arguments, **inputs):
        assert not arguments
        seen.update(inputs)
        return forward(self, **inputs)

    monkeypatch.setattr(model_class, "forward", recorded)
    run(
        tmp_path, "--per_device_train_batch_size", "8", "--max_steps", "1", "--eval_strategy", "steps",
        "--eval_steps", "1", "--eval_data_path", str(world.data),
    )  # fmt: skip
    assert seen == {"input_ids", "attention_mask", "labels", "instruction_mask", "images", "num_items_in_batch"}


def test_an_empty_name_of_a_projector_is_none(run, tmp_path):
    """A script that has the flag can be told to leave it out."""
    out = tmp_path / "out"
    assert run(out, "--pretrain_mm_mlp_adapter", "", "--max_steps", "1")
    assert (out / "trainer_state.json").exists()


def test_old_flag_names_are_accepted(run, tmp_path, world):
    log = run(
        tmp_path / "out",
        "--evaluation_strategy",
        "steps",
        "--eval_steps",
        "1",
        "--eval_data_path",
        str(world.data),
        "--per_device_train_batch_size",
        "8",
        "--max_steps",
        "1",
    )
    assert any("eval_loss" in entry for entry in log)
