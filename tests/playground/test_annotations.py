"""The LLaVA files: images, turns, suffixes, the mix and its balance; and the text and labels beside them."""

import json
import random
import re
from collections import Counter
from itertools import combinations

import pytest
from PIL import Image

from playground.mini.annotations import finetuning_samples, pretraining_samples, text_turn
from playground.mini.concepts import concepts, is_held_out
from playground.mini.corpus import documents
from playground.mini.questions.base import LETTER_SUFFIX, SHORT_SUFFIX
from playground.mini.questions.describe import DETAIL_REQUESTS, SHORT_REQUESTS
from playground.mini.scenes import make_scene, make_scenes
from playground.mini.tower import labels
from playground.mini.wording import at

NAMES = sorted(concepts(), key=len, reverse=True)


@pytest.fixture(scope="module")
def samples(train_scenes):
    return [
        sample
        for index, scene in enumerate(train_scenes)
        for sample in finetuning_samples(scene, f"train/{index:06d}.png", f"s{index}", 4)
    ]


def _turns(sample):
    return [(turn["from"], turn["value"]) for turn in sample["conversations"]]


def test_files_have_llavas_form(mini_build):
    scenes = [make_scene(0, "pretrain", index) for index in range(40)]
    where_and_presence = sum(len(scene.unique_objects()) + 1 for scene in scenes)
    things = sum(len(scene.objects) for scene in scenes)
    ranges = (where_and_presence + things // 4, where_and_presence + 3 * things // 4 + 50)
    for name, least, most in (("pretrain.json", *ranges), ("finetune.json", 180, 180)):
        rows = json.loads((mini_build / name).read_text())
        number = len(rows)
        assert least <= number <= most
        assert len({row["id"] for row in rows}) == number
        for row in rows:
            turns = _turns(row)
            assert [speaker for speaker, _ in turns] == ["human", "gpt"] * (len(turns) // 2)
            assert all(value == value.strip() and value for _, value in turns)
            markers = [value.count("<image>") for _, value in turns]
            assert markers == [int("image" in row)] + [0] * (len(turns) - 1)
            if "image" in row:
                assert turns[0][1].startswith("<image>\n")
                with Image.open(mini_build / "images" / row["image"]) as picture:
                    assert picture.size == (80, 80) and picture.mode == "RGB"


def test_every_picture_is_used_and_is_the_scene(mini_build, mini_config):
    from playground.mini.scenes import render

    files = sorted(path.relative_to(mini_build / "images") for path in (mini_build / "images").rglob("*.png"))
    assert len(files) == mini_config.scenes + mini_config.pretrain_scenes + mini_config.held_out_scenes
    for split, index in (("train", 7), ("pretrain", 7), ("test", 120_007)):
        with Image.open(mini_build / f"images/{split}/{index:06d}.png") as picture:
            assert picture.tobytes() == render(make_scene(0, split, index)).tobytes()


def test_samples_are_reproducible(train_scenes):
    first = [list(finetuning_samples(scene, "a.png", "x", 4)) for scene in train_scenes[:20]]
    assert first == [list(finetuning_samples(scene, "a.png", "x", 4)) for scene in train_scenes[:20]]
    first = [list(pretraining_samples(scene, "a.png", "x")) for scene in train_scenes[:20]]
    assert first == [list(pretraining_samples(scene, "a.png", "x")) for scene in train_scenes[:20]]


def test_mix(samples):
    number = len(samples)
    opening = [_turns(sample)[0][1].replace("<image>", "").strip() for sample in samples]
    shares = {
        "description": sum(text in DETAIL_REQUESTS for text in opening) / number,
        "several turns": sum(len(sample["conversations"]) > 2 for sample in samples) / number,
        "text": sum("image" not in sample for sample in samples) / number,
        "choice": sum(text.endswith(LETTER_SUFFIX) for text in opening) / number,
    }
    for kind, (low, high) in {
        "description": (0.05, 0.11),
        "several turns": (0.36, 0.52),
        "text": (0.01, 0.05),
        "choice": (0.13, 0.26),
    }.items():
        assert low < shares[kind] < high, shares
    assert {len(sample["conversations"]) for sample in samples} == {2, 4, 6}
    assert any("Reference OCR token: " in text for text in opening)
    assert any(text.startswith("Context: N/A\nQuestion: ") for text in opening)


def test_answers_have_the_form_that_the_prompt_asks_for(samples):
    letters, words, yes_no = Counter(), [], Counter()
    for sample in samples:
        turns = [value.replace("<image>\n", "").replace("\n<image>", "") for _, value in _turns(sample)]
        opening = next((suffix for suffix in (LETTER_SUFFIX, SHORT_SUFFIX) if turns[0].endswith(suffix)), "")
        for question, answer in zip(turns[::2], turns[1::2], strict=True):
            if opening and not question.endswith((LETTER_SUFFIX, SHORT_SUFFIX)) and not answer.endswith("."):
                question += opening  # the first turn asked for this form
            if question in DETAIL_REQUESTS:
                words.append(len(answer.split()))
            elif question.endswith(LETTER_SUFFIX):
                assert re.fullmatch("[A-D]", answer)
                marker = rf"\({answer}\) |\n{answer}\. "
                assert re.search(marker, question), "the letter is one of the options"
                letters[answer] += 1
            elif question.endswith(SHORT_SUFFIX):
                assert len(answer.split()) <= 2 and not answer.endswith(".")
                yes_no[answer] += answer in ("Yes", "No")
            else:
                assert answer.endswith(".")
    assert min(words) >= 40 and max(words) <= 130
    assert letters["A"] < 0.47 * letters.total() and letters["D"] > 0.03 * letters.total()
    assert 0.44 < yes_no["Yes"] / (yes_no["Yes"] + yes_no["No"]) < 0.56


def test_captions_are_one_sentence(train_scenes):
    first = [next(pretraining_samples(scene, "a.png", "x")) for scene in train_scenes[:200]]
    captions = [row for row in first if SHORT_SUFFIX not in _turns(row)[0][1]]
    assert 8 < len(captions) < 35, "a tenth of the scenes"
    for row in captions:
        (_, question), (_, answer) = _turns(row)
        assert question.replace("<image>", "").strip() in SHORT_REQUESTS
        assert answer.count(".") == 1 and answer.endswith(".")


def test_grounded_questions_ask_every_thing_and_a_quarter_of_the_places(train_scenes):
    asked = []
    for scene in train_scenes[:100]:
        found, where, there, signs = {}, {}, {}, []
        for row in pretraining_samples(scene, "a.png", "x"):
            (_, question), (_, answer) = _turns(row)
            signs += [answer] if "sign" in question and "color" not in question and answer.isupper() else []
            for place in re.findall(r"What is ((?:at|in|on) the .+)\?" + re.escape(SHORT_SUFFIX), question):
                found[place] = answer
            for name in re.findall(r"Where is the (.+)\?" + re.escape(SHORT_SUFFIX), question):
                where[name] = answer
            for name in re.findall(r"Is there an? (.+) in the image\?" + re.escape(SHORT_SUFFIX), question):
                there[name] = answer
        places = {item.concept: item.place for item in scene.unique_objects()}
        assert where.items() <= places.items()
        assert len(there) in (1, 2) and all(
            (answer == "Yes") == (name in scene.counts) for name, answer in there.items()
        )
        assert found == {at(item.place): item.concept for item in scene.objects}
        asked += [name in where for name in places]
        assert signs == ([scene.sign.word] if scene.sign else [])
    assert 0.15 < sum(asked) / len(asked) < 0.35


def test_text_only_turns_need_no_picture():
    rng = random.Random(0)
    turns = [text_turn(rng, f"key/{index}") for index in range(300)]
    for question, answer in turns:
        assert "<image>" not in question and answer
        if "in the picture?" in question or "Where" in question:
            assert question.startswith("Context: The picture shows ")
    assert 0.2 < sum(question.startswith("Context: The") for question, _ in turns) / len(turns) < 0.4


def test_held_out_pairs_are_in_no_training_text(samples):
    for text in _said_about_pictures(samples):
        present = _concepts_in(text)
        assert not any(is_held_out(x, y) for x, y in combinations(present, 2)), text


def _said_about_pictures(samples):
    """Detailed descriptions, which name all and only what is in a picture."""
    for sample in samples:
        turns = _turns(sample)
        if turns[0][1].replace("<image>", "").strip() in DETAIL_REQUESTS:
            yield turns[1][1]


def _concepts_in(text):
    found = re.findall(r"(?:small|medium|large) (" + "|".join(NAMES) + r")\b", text)
    return sorted(set(found))


def test_corpus_is_reproducible_and_does_not_depend_on_its_length():
    documents_20 = list(documents(1, 0, 20))
    assert documents_20 == list(documents(1, 0, 30))[:20] and documents_20[5:10] == list(documents(1, 5, 10))
    assert documents_20 != list(documents(2, 0, 20))


def test_corpus_speaks_the_language_of_the_tasks():
    texts = list(documents(0, 0, 600))
    everything = "\n".join(texts)
    assert "<image>" not in everything
    assert set(NAMES) <= {name for name in NAMES if name in everything}
    for phrase in (
        SHORT_SUFFIX,
        LETTER_SUFFIX,
        "USER: ",
        "ASSISTANT: ",
        "\nQ: ",
        "\nA: ",
        "Context: ",
        "Options: (A)",
    ):
        assert phrase in everything
    assert 300 < sum(map(len, texts)) / len(texts) < 900
    held_out = 0
    for text in texts:
        premise = re.search(r"The picture shows (.+?)(?: on an? |, on )", text)
        present = _concepts_in(premise.group(1)) if premise else []
        held_out += any(is_held_out(x, y) for x, y in combinations(present, 2))
    assert held_out == 0


def test_tower_labels_are_what_is_in_the_scene(mini_build):
    for scene in (make_scene(0, split, index) for split in ("train", "pretrain") for index in range(10)):
        texts = labels(scene)
        assert len(texts) == len(scene.objects) + (scene.sign is not None) + 1
        assert any(scene.background.colour in text for text in texts)
    rows = [json.loads(line) for line in (mini_build / "tower.jsonl").read_text().splitlines()]
    assert len(rows) == 100 and all((mini_build / "images" / row["image"]).is_file() for row in rows)
    scene = make_scene(0, "train", 3)
    assert next(row["labels"] for row in rows if row["image"] == "train/000003.png") == labels(scene)


def test_training_and_test_pictures_differ():
    seen = {(scene.objects, scene.sign) for split in ("train", "pretrain") for scene in make_scenes(0, split, 400)}
    assert not any((scene.objects, scene.sign) in seen for scene in make_scenes(0, "test", 400))
