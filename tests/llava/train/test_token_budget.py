"""Training with ``--max_tokens_per_batch``: the losses and weights of fixed-size micro-batches, also after resuming."""

import pytest
import torch
from safetensors.torch import load_file

from llava.train.trainer import LlavaTrainer
from tests.runs import as_if_killed_after

FIXED = ("--per_device_train_batch_size", "10", "--num_train_epochs", "2", "--group_by_modality_length", "True")
FILLED = (*FIXED, "--max_tokens_per_batch", "170")


def losses(log):
    return [entry["loss"] for entry in log if "loss" in entry]


@pytest.fixture
def micro_batches(monkeypatch):
    """Step and samples of every micro-batch that training runs."""
    seen = []
    real = LlavaTrainer.micro_batch_loss

    def noting(self, model, inputs, counts):
        if model.training:
            seen.append((self.state.global_step, *inputs["sample_index"].tolist()))
        return real(self, model, inputs, counts)

    monkeypatch.setattr(LlavaTrainer, "micro_batch_loss", noting)
    return seen


@pytest.mark.parametrize("slots", [1, 5])
def test_filled_micro_batches_train_the_same_model(slots, run, tmp_path, micro_batches):
    """In one accumulation step or five, with more and with fewer micro-batches than these."""
    fixed = run(tmp_path / "fixed", *FIXED)
    before = list(micro_batches)
    micro_batches.clear()
    accumulated = ("--gradient_accumulation_steps", str(slots), "--per_device_train_batch_size", str(10 // slots))
    filled = run(tmp_path / "filled", *FILLED, *accumulated, "--dataloader_num_workers", "1")
    assert len(losses(fixed)) == 6 and losses(filled) == pytest.approx(losses(fixed), rel=1e-4)
    assert [entry["epoch"] for entry in filled] == [entry["epoch"] for entry in fixed]
    of_step = [[batch[1:] for batch in micro_batches if batch[0] == step] for step in range(6)]
    numbers = [len(batches) for batches in of_step]
    assert min(numbers) < 5 < max(numbers)
    for step, batches in enumerate(of_step):
        assert sorted(sum(batches, ())) == sorted(sum((batch[1:] for batch in before if batch[0] == step), ()))
    for name, weight in load_file(tmp_path / "fixed/model.safetensors").items():
        found = load_file(tmp_path / "filled/model.safetensors")[name]
        torch.testing.assert_close(found, weight, rtol=1e-2, atol=2e-4)


def test_a_resumed_run_sees_the_same_micro_batches(run, tmp_path, micro_batches):
    """Stopped within the second epoch; bit by bit the run that was not stopped."""
    out = tmp_path / "run"
    saving = ("--save_strategy", "steps", "--save_steps", "2")
    whole = run(out, *FILLED, *saving)
    expected, weights = list(micro_batches), load_file(out / "model.safetensors")
    as_if_killed_after(out, 4)
    micro_batches.clear()
    assert losses(run(out, *FILLED, *saving)) == losses(whole)
    assert micro_batches == [batch for batch in expected if batch[0] >= 4]
    assert all(torch.equal(weight, weights[name]) for name, weight in load_file(out / "model.safetensors").items())
