"""Draws belong to the samples: to their numbers in the data set, not to their texts, their batch or their place."""

import json

import pytest
import torch
from safetensors.torch import load_file

from align_ti import objective
from align_ti.candidates.noise import SampleNoise
from tests.runs import steps

WIDTH, DRAWS, SEED, STEP = 6, 3, 5, 7


def batch_of(texts, index=None, side="right"):
    """A batch of token lists, padded."""
    ids, mask = torch.zeros(2, len(texts), WIDTH, dtype=torch.long)
    for row, text in enumerate(texts):
        columns = slice(0, len(text)) if side == "right" else slice(WIDTH - len(text), WIDTH)
        ids[row, columns], mask[row, columns] = torch.tensor(text), 1
    batch = {"input_ids": ids, "attention_mask": mask.bool()}
    return batch if index is None else {**batch, "sample_index": torch.tensor(index)}


def noise_of(batch, counts, seed=SEED, step=STEP, **options):
    """Noise a sample: ``[count, DRAWS]`` each."""
    noise = SampleNoise(batch, seed, step).draws(counts, DRAWS, **options)
    assert noise.shape == (sum(counts), DRAWS) and noise.dtype == torch.float64
    assert noise.min() >= 0 and noise.max() < 1
    return noise.split(counts)


def test_two_samples_of_one_text_draw_differently():
    same = [[4, 5, 6]] * 3
    for index in ([8, 2, 30], None):
        first, second, third = noise_of(batch_of(same, index), [2, 2, 2])
        assert not (first == second).any() and not (first == third).any() and not (second == third).any()


def test_a_number_decides_alone():
    """Not the place in the batch, the padding, the other samples, or what the sample says: its answer may be new."""
    texts, index = [[4, 5, 6], [4, 5, 6], [7, 8]], [3, 11, 0]
    whole = noise_of(batch_of(texts, index), [2, 4, 3])
    for row, count in enumerate((2, 4, 3)):
        alone = batch_of([texts[row]], [index[row]], side="left")
        assert torch.equal(noise_of(alone, [count])[0], whole[row])
        assert torch.equal(noise_of(batch_of([[9]], [index[row]]), [count])[0], whole[row])
    turned = noise_of(batch_of(texts[::-1], index[::-1]), [3, 4, 2])
    assert all(torch.equal(*pair) for pair in zip(turned[::-1], whole, strict=True))


def test_without_numbers_the_text_and_its_occurrence_decide():
    texts = [[4, 5], [7, 8], [4, 5]]
    first, other, second = noise_of(batch_of(texts), [2, 2, 2])
    assert torch.equal(noise_of(batch_of([[4, 5]], side="left"), [2])[0], first)
    assert torch.equal(noise_of(batch_of([[7, 8], [4, 5], [4, 5]]), [2, 2, 2])[2], second)
    assert not (first == second).any() and not (first == other).any()


def test_seed_step_and_purpose_change_all_draws():
    batch, counts = batch_of([[4, 5], [4, 5]], [0, 1]), [3, 3]
    plain = torch.cat(noise_of(batch, counts))
    for options in ({"seed": 6}, {"step": 8}, {"purpose": b"another"}):
        assert not (torch.cat(noise_of(batch, counts, **options)) == plain).any()


def test_a_number_is_no_text():
    """A sample's number and the same number as a token are two things."""
    by_number = noise_of(batch_of([[4]], [0]), [2])[0]
    for text in ([0], [0, 0], [4]):
        assert not (noise_of(batch_of([text]), [2])[0] == by_number).any()


@pytest.fixture
def twins(world, tmp_path):
    """Eight entries of one text: they differ in nothing but their place in the file."""
    entry = json.loads(world.data.read_text())[0]
    file = tmp_path / "twins.json"
    file.write_text(json.dumps([entry] * 8))
    return file


def test_one_number_for_each_sample():
    batch = batch_of([[4, 5, 6], [4, 5, 6], [7, 8]], [3, 11, 0])
    numbers = SampleNoise(batch, SEED, STEP)
    ones = numbers.one_each(b"rows")
    assert ones.shape == (3,) and len(set(ones.tolist())) == 3
    assert torch.equal(ones, SampleNoise(batch, SEED, STEP).draws([1, 1, 1], 1, b"rows")[:, 0])
    assert not torch.equal(ones, numbers.one_each(b"others"))


def test_twins_in_training(run, twins, tmp_path, monkeypatch):
    """Draws of a real run differ between equal samples, and not between splits of the batch."""
    seen = {}

    class Recorded(SampleNoise):
        def draws(self, per_sample, d, purpose=b""):
            noise = super().draws(per_sample, d, purpose)
            for index, part in zip(self.batch["sample_index"].tolist(), noise.split(per_sample), strict=True):
                seen.setdefault((self.step, index), []).append(part)
            return noise

    monkeypatch.setattr(objective, "SampleNoise", Recorded)
    flags = ("--data_path", str(twins), "--iva_layer", "1", "--max_steps", "2", "--num_train_epochs", "2")
    whole = run(tmp_path / "whole", *flags, "--per_device_train_batch_size", "8")
    split = run(
        tmp_path / "split", *flags, "--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "4",
        "--packing", "True",
    )  # fmt: skip
    assert seen.keys() == {(step, index) for step in (0, 1) for index in range(8)}
    assert all(torch.equal(*pair) for pair in seen.values())
    firsts = [pair[0] for pair in seen.values()]
    assert len({float(part[0, 0]) for part in firsts}) == len(firsts)
    for ours, theirs in zip(steps(whole, "loss", "tpa"), steps(split, "loss", "tpa"), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-3)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "split"))
    assert all(torch.allclose(one[name], other[name], atol=2e-4) for name in one)
