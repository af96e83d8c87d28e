"""Tokens of samples: counted in small data sets, in large ones estimated from words, turns and images."""

import json

import numpy as np
import pytest
from PIL import Image
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from llava.conversation import get_template
from llava.data import lengths
from llava.data.annotations.table import open_annotations
from llava.data.dataset import ConversationDataset
from llava.data.lengths import token_lengths


@pytest.fixture
def dataset(tmp_path, qwen_tokenizer):
    """Conversations of one to four turns with none to two images of 7 tokens; one entry is malformed."""
    rng = np.random.default_rng(0)
    entries = []
    for index in range(60):
        images = ["one.png"] * int(rng.integers(0, 3))
        turns = []
        for turn in range(int(rng.integers(1, 5))):
            question = "<image>\n" * (len(images) if turn == 0 else 0) + "Is there a goat or a dog in the picture? " * 2
            turns += [
                {"from": "human", "value": question},
                {"from": "gpt", "value": "A cat. " * int(rng.integers(1, 30))},
            ]
        entries.append({"id": str(index), "conversations": turns, **({"image": images} if images else {})})
    entries[7] = {"id": "7", "conversations": []}
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    path = tmp_path / "data.json"
    path.write_text(json.dumps(entries))
    return ConversationDataset(
        open_annotations(path), qwen_tokenizer, get_template("qwen"), model_max_length=400, visual_tokens=7,
        on_bad_sample="skip", image_processor=SiglipImageProcessorPil(size={"height": 32, "width": 32}),
    )  # fmt: skip


def test_counted_where_there_are_few(dataset):
    """The lengths of the samples themselves, with each image's placeholder replaced by 7 tokens."""
    found = token_lengths(dataset)
    assert found.shape == (60,) and (found > 0).all() and (found == 400).any()
    for index in set(range(60)) - {7}:
        sample = dataset[index]
        assert found[index] == len(sample["input_ids"]) + 6 * len(sample["images"])


def test_estimated_where_there_are_many(dataset, monkeypatch, caplog):
    exact = token_lengths(dataset)
    monkeypatch.setattr(lengths, "COUNTED", 20)
    caplog.set_level("INFO")
    found = token_lengths(dataset)
    assert "estimated from" in caplog.text
    good = np.arange(60) != 7
    assert (np.abs(found - exact)[good] < 0.1 * exact[good]).all() and (found != exact).any()
    assert (token_lengths(dataset) == found).all()
