"""LLaVA's question files made from the published annotations, against lines of LLaVA's own files."""

import json

import pytest

from llava.errors import InputError
from llava.eval.benchmarks.mme import COGNITION, PERCEPTION
from llava.prepare.benchmarks.questions import (
    gqa_questions,
    mme_questions,
    pope_questions,
    sqa_questions,
    textvqa_questions,
)

SHORT = "\\nAnswer the question using a single word or phrase."


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def test_gqa(tmp_path):
    write(
        tmp_path / "data/testdev_balanced_questions.json",
        {"201307251": {"imageId": "n161313", "question": "Is it overcast?", "answer": "no", "isBalanced": True}},
    )
    assert gqa_questions(tmp_path) == (
        '{"question_id": "201307251", "image": "n161313.jpg", "text": "Is it overcast?' + SHORT + '", '
        '"category": "default"}\n'
    )


def test_scienceqa(tmp_path):
    problems = {
        "11": {
            "question": "What is the name of the colony shown?",
            "choices": ["Maryland", "New Hampshire", "Rhode Island", "Vermont"],
            "answer": 1,
            "hint": "",
            "image": "image.png",
        },
        "26": {
            "question": "How long does it take to bake lasagna in the oven?",
            "choices": ["33 minutes", "33 hours"],
            "answer": 0,
            "hint": "Select the better estimate.",
            "image": None,
        },
        "145": {
            "question": "What is the temperature of the air on a cold, rainy day?",
            "choices": ["45°C", "45°F"],
            "answer": 1,
            "hint": "Select the better estimate.",
            "image": None,
        },
    }
    write(tmp_path / "problems.json", problems)
    write(tmp_path / "pid_splits.json", {"train": ["1"], "test": ["11", "26", "145"]})
    made = sqa_questions(tmp_path)
    assert made.startswith(
        '[\n  {\n    "id": "11",\n    "image": "11/image.png",\n    "conversations": [\n      {\n'
        '        "from": "human",\n        "value": "<image>\\nWhat is the name of the colony shown?\\nA. Maryland\\n'
        'B. New Hampshire\\nC. Rhode Island\\nD. Vermont"\n      },\n      {\n        "from": "gpt",\n'
        '        "value": "B"\n      }\n    ]\n  },\n  {\n    "id": "26",\n    "conversations": ['
    )
    assert made.endswith("\n]") and "A. 45\\u00b0C\\nB. 45\\u00b0F" in made
    assert json.loads(made)[1]["conversations"][0]["value"] == (
        "Context: Select the better estimate.\nHow long does it take to bake lasagna in the oven?\n"
        "A. 33 minutes\nB. 33 hours"
    )


def test_textvqa(tmp_path):
    asked = [
        ("003a8ae2ef43b901", "what is the brand of this camera?"),
        ("97b1112b17015396", "whats the lowest number yard line that you can see?"),
        ("c8616652f54577f4", "who is the author of the book?"),
    ]
    tokens = {
        "003a8ae2ef43b901": ["DAKOTA", "DIGITAL", "Single-Use", "Camera", "Pire", "digitat"],
        "97b1112b17015396": [],
        "c8616652f54577f4": ["©", "JORGE", "MEJIA"],
    }
    write(
        tmp_path / "TextVQA_0.5.1_val.json",
        {"data": [{"image_id": image, "question": question} for image, question in asked]},
    )
    ocr = [{"image_id": image, "ocr_tokens": words} for image, words in reversed(tokens.items())]
    write(tmp_path / "TextVQA_Rosetta_OCR_v0.2_val.json", {"data": ocr})
    first, second, third = textvqa_questions(tmp_path).splitlines()
    assert first == (
        '{"question_id": "003a8ae2ef43b901", "image": "003a8ae2ef43b901.jpg", "text": "What is the brand of this '
        "camera?\\nReference OCR token: DAKOTA, DIGITAL, Single-Use, Camera, Pire, digitat"
        + SHORT
        + '", "category": "default"}'
    )
    assert '"Whats the lowest number yard line that you can see?\\nReference OCR token: ' + SHORT in second
    assert "Reference OCR token: \\u00a9, JORGE, MEJIA" + SHORT in third


def test_pope(tmp_path):
    """Each category counts from 1; LLaVA's ids are unique, and the publisher's slip of the pen is in its prompts."""
    rows = {
        "adversarial": (11, "COCO_val2014_000000210789.jpg", "Is there an umbrella in the imange?"),
        "random": (1, "COCO_val2014_000000310196.jpg", "Is there a snowboard in the image?"),
        "popular": (3000, "COCO_val2014_000000277289.jpg", "Is there a chair in the image?"),
    }
    for category, (number, image, text) in rows.items():
        row = {"question_id": number, "image": image, "text": text, "label": "yes"}
        write(tmp_path / f"coco/coco_pope_{category}.json", json.dumps(row) + "\n")
    assert pope_questions(tmp_path).splitlines() == [
        f'{{"question_id": {number}, "image": "COCO_val2014_000000{image}.jpg", "text": "{text}{SHORT}", '
        f'"category": "{category}"}}'
        for number, image, text, category in (
            (11, "210789", "Is there an umbrella in the imange?", "adversarial"),
            (10000001, "310196", "Is there a snowboard in the image?", "random"),
            (20003000, "277289", "Is there a chair in the image?", "popular"),
        )
    ]


@pytest.fixture
def mme(tmp_path):
    """A release of fourteen subtasks with one picture each; some keep texts and pictures in folders of their own."""
    release = tmp_path / "MME_Benchmark_release_version/MME_Benchmark"
    for subtask in PERCEPTION + COGNITION:
        apart = subtask in ("artwork", "celebrity", "landmark", "posters", "scene")
        stem = "38740" if apart else "0020"
        text = "Is this {}?  Please answer yes or no.\tYes\nIs this not {}? Please answer yes or no.\tNo\n"
        write(release / subtask / ("questions_answers_YN" if apart else "") / f"{stem}.txt", text.format("it", "it"))
        write(release / subtask / ("images" if apart else "") / (f"{stem}.jpg" if apart else f"{stem}.png"), "")
    artwork = "Is this artwork displayed in musée toulouse-lautrec, albi? Please answer yes or no.\tYes\n"
    write(release / "artwork/questions_answers_YN/38740.txt", artwork)
    return release


def test_mme(tmp_path, mme):
    lines = mme_questions(tmp_path).splitlines()
    assert len(lines) == 27
    assert (
        '{"question_id": "code_reasoning/0020.png", "image": "code_reasoning/0020.png", "text": "Is this it?'
        + SHORT
        + '", "category": "code_reasoning"}'
    ) in lines
    assert (
        '{"question_id": "artwork/images/38740.jpg", "image": "artwork/images/38740.jpg", "text": "Is this artwork '
        "displayed in mus\\u00e9e toulouse-lautrec, albi?" + SHORT + '", "category": "artwork"}'
    ) in lines


def test_mme_without_a_picture_or_a_subtask(tmp_path, mme):
    (mme / "count/0020.png").unlink()
    with pytest.raises(InputError, match="count has no image for .*count/0020.txt; unpack the release again"):
        mme_questions(tmp_path)
    (mme / "count/0020.txt").unlink()
    (mme / "count").rmdir()
    with pytest.raises(InputError, match="MME's subtask 'count' not found"):
        mme_questions(tmp_path)


def test_annotations_of_another_form(tmp_path):
    write(tmp_path / "data/testdev_balanced_questions.json", {"1": {"question": "?"}})
    with pytest.raises(
        InputError, match="testdev.*does not have the published format .KeyError: 'imageId'.*download it again"
    ):
        gqa_questions(tmp_path)
    write(tmp_path / "problems.json", {})
    write(tmp_path / "pid_splits.json", {"test": ["4"]})
    with pytest.raises(InputError, match="problems.json does not have the published format .KeyError: '4'"):
        sqa_questions(tmp_path)
    write(tmp_path / "TextVQA_0.5.1_val.json", {"data": [{"image_id": "a", "question": "?"}]})
    write(tmp_path / "TextVQA_Rosetta_OCR_v0.2_val.json", {"data": []})
    with pytest.raises(InputError, match="TextVQA_0.5.1_val.json does not have the published format .KeyError: 'a'"):
        textvqa_questions(tmp_path)
