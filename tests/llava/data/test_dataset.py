import logging
import pickle
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import get_template
from llava.data.annotations.table import open_annotations
from llava.data.collator import ConversationCollator
from llava.data.dataset import BadSample, ConversationDataset
from llava.data.images import load_image, preprocess_image
from llava.data.tokenize import tokenize_conversation
from llava.errors import InputError


@pytest.fixture
def make(write_json, qwen_tokenizer, siglip_processor, pictures):
    def build(entries, **options):
        options = {
            "image_processor": siglip_processor,
            "image_folder": pictures,
            "visual_tokens": 4,
        } | options
        tokenizer = options.pop("tokenizer", qwen_tokenizer)
        template = get_template(options.pop("version", "qwen"))
        return ConversationDataset(open_annotations(write_json(entries)), tokenizer, template, **options)

    return build


@pytest.fixture
def entries(talk):
    return [
        {"id": "one", "image": "a.png", "conversations": talk("<image>\nWhat is it?", "Red.")},
        {"id": "text", "conversations": talk("Hi", "Hello.")},
        {
            "id": "two",
            "image": ["b.png", "c.jpg"],
            "conversations": talk("<image><image>Which?", "Both.", "?", "!"),
        },
    ]


def test_items_are_tokens_and_pixels(make, entries, pictures, qwen_tokenizer, siglip_processor):
    dataset = make(entries, image_aspect_ratio="pad")
    assert len(dataset) == 3
    assert dataset.lengths.tolist() == [5, -2, 4]
    for index, names in enumerate([["a.png"], [], ["b.png", "c.jpg"]]):
        item = dataset[index]
        tokens = tokenize_conversation(entries[index]["conversations"], qwen_tokenizer, dataset.template, len(names))
        for name, tensor in vars(tokens).items():
            assert torch.equal(item[name], tensor)
        assert len(item["images"]) == len(names) and item["sample_index"].tolist() == index
        for pixels, name in zip(item["images"], names, strict=True):
            assert pixels.shape == (3, 32, 32) and pixels.dtype == torch.float32
            assert torch.equal(pixels, preprocess_image(load_image(pictures / name), siglip_processor, "pad"))


def test_images_beside_the_annotations_without_a_folder(make, entries, pictures):
    entries[0]["image"] = "images/a.png"
    entries[2]["image"] = [str(pictures / "b.png"), "images/c.jpg"]
    dataset = make(entries, image_folder=None)
    assert [len(dataset[index]["images"]) for index in range(3)] == [1, 0, 2]


def test_a_share_of_the_samples_is_trained_on_as_a_whole(make, entries):
    """All text is a target then, images and the first token are not; the same samples each time."""
    whole = make(entries, train_on_inputs=1.0)
    for index in range(3):
        item = whole[index]
        expected = item["input_ids"].clone()
        expected[expected == IMAGE_TOKEN_INDEX] = IGNORE_INDEX
        expected[0] = IGNORE_INDEX
        assert torch.equal(item["labels"], expected)
        assert (item["labels"] != IGNORE_INDEX).sum() > (make(entries)[index]["labels"] != IGNORE_INDEX).sum() > 0
    usual = make(entries[:1] * 400)
    some = make(entries[:1] * 400, train_on_inputs=0.25)
    chosen = [not torch.equal(some[index]["labels"], usual[0]["labels"]) for index in range(400)]
    assert 75 <= sum(chosen) <= 125
    assert chosen == [not torch.equal(some[index]["labels"], usual[0]["labels"]) for index in range(400)]
    with pytest.raises(InputError, match="--train_on_inputs is 2"):
        make(entries, train_on_inputs=2)


def test_an_answer_cut_away_is_an_error_though_the_question_is_a_target(make, entries):
    full = make(entries)
    limit = len(full[0]["input_ids"]) + 3 - int((full[0]["labels"] != IGNORE_INDEX).sum())
    with pytest.raises(InputError, match="whole answer is cut away"):
        make(entries, model_max_length=limit, train_on_inputs=1.0)[0]


BAD = {
    "missing": ("gone.png", "does not exist"),
    "damaged": ("cut.jpg", "cannot be read"),
    "foreign": ("text.png", "not in a format"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_images_are_errors_that_name_entry_and_file(make, entries, pictures, kind):
    (pictures / "cut.jpg").write_bytes((pictures / "c.jpg").read_bytes()[:-200])
    (pictures / "text.png").write_text("no picture")
    name, words = BAD[kind]
    entries[0]["image"] = name
    dataset = make(entries)
    with pytest.raises(InputError, match=rf"data\.json, entry 0 \(id 'one', line 2\): image .*{name}.* {words}"):
        dataset[0]
    dataset[1]
    skipping = make(entries, on_bad_sample="skip")
    bad = skipping[0]
    assert isinstance(bad, BadSample)
    assert name in bad.reason and "id 'one'" in bad.reason
    assert len(skipping[2]["images"]) == 2


def test_images_are_looked_for_before_training(make, entries, talk, caplog):
    """A wrong folder, or one image in three: named, counted; malformed entries are not looked at."""
    make(entries).look_for_images()
    entries[2]["image"] = ["b.png", "gone.png"]
    with pytest.raises(
        InputError, match=r"1 of 3 images.*gone\.png' of .*id 'two'.*does not exist. Check --image_folder"
    ):
        make(entries).look_for_images()
    broken = {"id": "x", "image": "no.png", "conversations": talk("<image>\nq", "")}
    make([*entries, broken], on_bad_sample="skip").look_for_images()
    assert "1 of 3 images checked are missing" in caplog.text
    make([entries[1]]).look_for_images()
    many = [entries[0] | {"image": "gone.png" if index == 999 else "a.png"} for index in range(1000)]
    with pytest.raises(InputError, match="1 of 256 images"):
        make(many).look_for_images()


def test_malformed_entries_are_refused_before_training(make, entries, talk):
    entries += [{"id": "x", "conversations": talk("q", "")}, {"id": "y", "conversations": "none"}]
    with pytest.raises(InputError, match="2 of 5 entries are malformed.*id 'x'.*is empty.*id 'y'.*llava.data.check"):
        make(entries)
    dataset = make(entries, on_bad_sample="skip")
    assert "is empty" in dataset[3].reason and "id 'x'" in dataset[3].reason
    assert isinstance(dataset[0], dict)


def test_cutting(make, entries):
    full = make(entries)
    length = len(full[0]["input_ids"]) + 3
    exact = make(entries, model_max_length=length)
    assert torch.equal(exact[0]["input_ids"], full[0]["input_ids"])
    cut = make(entries, model_max_length=length - 1)
    assert torch.equal(cut[0]["input_ids"], full[0]["input_ids"][:-1])
    assert torch.equal(cut[0]["labels"], full[0]["labels"][:-1])
    limit = int((full[0]["input_ids"] == -200).nonzero()) + 3
    complaint = rf"id 'one'.*an image is cut away.*{length} positions .4 per image.*limit is {limit}"
    with pytest.raises(InputError, match=complaint):
        make(entries, model_max_length=limit)[0]
    targets = int((full[0]["labels"] != -100).sum())
    with pytest.raises(InputError, match="whole answer is cut away"):
        make(entries, model_max_length=length - targets)[0]


def test_bad_samples_cost_no_image(make, entries, monkeypatch):
    """A sample that is too long is refused before its image is opened."""
    monkeypatch.setattr("llava.data.dataset.load_image", lambda path: pytest.fail(f"opened {path}"))
    assert "cut away" in make(entries, model_max_length=10, on_bad_sample="skip")[0].reason


def test_only_the_first_few_are_described(make, entries, caplog):
    dataset = make([entries[0] | {"image": f"{index}.png"} for index in range(9)], on_bad_sample="skip")
    with caplog.at_level(logging.WARNING):
        for index in range(9):
            dataset[index]
    lines = [record.getMessage() for record in caplog.records]
    assert sum("does not exist" in line for line in lines) == 5
    assert "0.png" in lines[0]
    assert sum("counted without a message" in line for line in lines) == 1


def test_wrong_arguments(make, entries):
    for options, words in [
        ({"image_processor": None}, "no vision tower"),
        ({"image_folder": Path("/no/such/folder")}, "/no/such/folder.*--image_folder"),
        ({"image_aspect_ratio": "anyres"}, "'anyres'"),
        ({"on_bad_sample": "ignore"}, "'ignore'"),
    ]:
        with pytest.raises(InputError, match=words):
            make(entries, **options)
    assert len(make(entries[1:2], image_processor=None)[0]["images"]) == 0


def test_a_template_foreign_to_the_tokenizer_is_noticed(make, entries, caplog):
    with caplog.at_level(logging.WARNING):
        make(entries, version="qwen")
        make(entries[:1], version="plain")
        assert not caplog.records
        make(entries, version="v1")
    assert "'</s>'" in caplog.text and "--version" in caplog.text


def test_a_pickled_dataset_is_the_same(make, entries):
    """What a worker that is spawned and not forked gets."""
    dataset = make(entries)
    copy = pickle.loads(pickle.dumps(dataset))
    for index in range(3):
        for key, value in dataset[index].items():
            assert torch.equal(copy[index][key], value)


def test_workers_give_the_same_batches(make, entries, qwen_tokenizer):
    dataset = make(entries * 2)
    collator = ConversationCollator(qwen_tokenizer.pad_token_id)
    here = list(DataLoader(dataset, batch_size=2, collate_fn=collator))
    assert torch.cat([batch["sample_index"] for batch in here]).tolist() == list(range(6))
    there = list(DataLoader(dataset, batch_size=2, collate_fn=collator, num_workers=1, multiprocessing_context="fork"))
    for expected, batch in zip(here, there, strict=True):
        assert expected.keys() == batch.keys()
        for key in expected:
            assert torch.equal(expected[key], batch[key])
