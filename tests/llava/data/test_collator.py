import logging

import pytest
import torch

from llava.data.collator import ConversationCollator
from llava.data.dataset import BadSample
from llava.errors import InputError

PAD = 9


def sample(length, images=0, value=0.0):
    """A sample whose tokens are, among others, the padding id itself."""
    ids = torch.full((length,), PAD)
    ids[0] = 1
    labels = ids.clone()
    labels[0] = -100
    return {
        "input_ids": ids,
        "labels": labels,
        "instruction_mask": torch.ones(length, dtype=torch.bool),
        "end_of_turn_mask": torch.ones(length, dtype=torch.bool),
        "images": torch.full((images, 3, 4, 4), value) if images else torch.empty(0, 3, 0, 0),
    }


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_comes_from_lengths(side):
    batch = ConversationCollator(PAD, side)([sample(2), sample(4)])
    real = slice(0, 2) if side == "right" else slice(2, 4)
    expected = torch.zeros(4, dtype=torch.bool)
    expected[real] = True
    assert batch.keys() == {"input_ids", "labels", "instruction_mask", "attention_mask"}
    assert batch["attention_mask"].dtype == torch.bool
    assert batch["attention_mask"].tolist() == [expected.tolist(), [True] * 4]
    assert batch["instruction_mask"].tolist() == [expected.tolist(), [True] * 4]
    assert batch["input_ids"][0, real].tolist() == [1, PAD]
    assert batch["input_ids"][0, ~expected].tolist() == [PAD, PAD]
    assert batch["labels"][0, real].tolist() == [-100, PAD]
    assert batch["labels"][0, ~expected].tolist() == [-100, -100]
    assert batch["labels"][1].tolist() == [-100, PAD, PAD, PAD]


def test_images_in_reading_order():
    batch = ConversationCollator(PAD)([sample(3, 2, 1.0), sample(3), sample(3, 1, 2.0)])
    assert batch["images"].shape == (3, 3, 4, 4)
    assert batch["images"][:, 0, 0, 0].tolist() == [1.0, 1.0, 2.0]


def test_bad_samples_are_dropped_and_counted():
    collator = ConversationCollator(PAD)
    batch = collator([BadSample("x"), sample(3, 1, 5.0), BadSample("y"), sample(2)])
    assert batch["skipped"] == 2
    assert batch["input_ids"].shape == (2, 3)
    assert len(batch["images"]) == 1
    assert "skipped" not in collator([sample(2)])


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_batch_of_bad_samples_is_one_idle_row(side, caplog):
    with caplog.at_level(logging.WARNING):
        batch = ConversationCollator(PAD, side)([BadSample("x"), BadSample("y")])
    assert "all 2 samples of a batch are bad" in caplog.text
    assert batch.pop("skipped") == 2
    assert {key: value.tolist() for key, value in batch.items()} == {
        "input_ids": [[PAD]],
        "labels": [[-100]],
        "instruction_mask": [[False]],
        "attention_mask": [[True]],
    }


def numbered(length, index):
    return {**sample(length), "sample_index": torch.tensor(index)}


@pytest.mark.parametrize("side", ["right", "left"])
def test_samples_keep_their_numbers(side):
    """Those that are left out included."""
    batch = ConversationCollator(PAD, side)([numbered(3, 40), BadSample("x"), numbered(5, 7), numbered(4, 1000)])
    assert batch["sample_index"].tolist() == [40, 7, 1000] and batch["sample_index"].dtype == torch.long
    assert batch["attention_mask"].sum(1).tolist() == [3, 5, 4]


def test_a_sample_without_a_number_leaves_none():
    assert "sample_index" not in ConversationCollator(PAD)([numbered(3, 4), sample(2)])


def test_wrong_arguments():
    with pytest.raises(InputError, match="'middle', expected 'right' or 'left'"):
        ConversationCollator(PAD, "middle")
    with pytest.raises(InputError, match="no padding token"):
        ConversationCollator(None)
