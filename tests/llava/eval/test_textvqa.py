"""TextVQA: the normalisation of the M4C evaluator case by case, and VQA accuracy by hand."""

import json

import pytest

from llava.errors import InputError
from llava.eval.benchmarks.textvqa import BENCHMARK, accuracy, score, wording
from llava.eval.evaluate import Task
from llava.eval.vqa_words import normalise


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Nokia", "nokia"),
        ("The Nokia.", "nokia"),
        ("a an the", ""),
        ("one", "1"),
        ("Ten o'clock", "10 o'clock"),
        ("none", "0"),
        ("eleven", "eleven"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("3.", "3"),
        ("U.S.A.", "usa"),
        ("a.5", "a.5"),
        ("$3.50", "$3.50"),
        ("coca-cola", "coca cola"),  # no space beside the mark: it becomes one
        ("coca -cola", "coca cola"),  # beside a space anywhere: deleted
        ("coca- cola t-shirt", "coca cola tshirt"),
        ("what?", "what"),
        ("stop!", "stop"),
        ("stop! now", "stop now"),
        ("12:30", "12:30"),  # a colon is no punctuation mark here
        ("mcdonald's", "mcdonald 's"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("yall'd've", "y'all'd've"),
        ("shed", "shed"),
        ("  two\nlines\there ", "2 lines here"),
        ("café (bar)", "café bar"),  # ")" stands at the end, "(" beside a space
        ("", ""),
        ("...", ""),
        ("." * 40, "." * 8),  # only 32 are replaced
        ("x" * 3000, "x" * 3000),
    ],
)
def test_normalisation(answer, expected):
    assert normalise(answer) == expected


def test_accuracy_leaves_each_person_out():
    people = ["stop"] * 7 + ["the stop", "go", "go"]
    assert accuracy("STOP.", people) == 1.0
    # "go" was said by two: left out by 8 others it has 2/3, by themselves 1/3 each
    assert accuracy("go", people) == pytest.approx((8 * 2 / 3 + 2 * 1 / 3) / 10)
    assert accuracy("halt", people) == 0.0
    # three people: 7 leave out another (3 of 3), three leave out themselves (2 of 3)
    assert accuracy("2", ["2", "two", "2", "22", "3", "4", "5", "6", "7", "8"]) == pytest.approx(0.9)
    # one person: 9 x 1/3 and once 0
    assert accuracy("22", ["22"] + ["2"] * 9) == pytest.approx(0.3)


@pytest.mark.parametrize(
    "prompt",
    [
        "What Is It?\nAnswer the question using a single word or phrase.",
        "What Is It?\nReference OCR token: A, B\nAnswer the question using a single word or phrase.",
        "Reference OCR token: A\nWhat Is It?\nAnswer the question using a single word or phrase.",
        "OCR tokens: A. Question: What Is It? Short answer:",
    ],
)
def test_question_inside_the_prompt(prompt):
    assert wording(prompt) == "what is it?"


def test_score_of_hand_made_answers(eval_root):
    task = Task.load(BENCHMARK, eval_root)
    assert [q.key for q in task.questions] == ["aa", "aa#2", "bb"]
    result = score(task.questions, ["the Stop", None, "Two"])
    assert result.value == pytest.approx(100 * (1.0 + 0.0 + 0.9) / 3)


def test_wrong_annotation(eval_root):
    path = eval_root / "textvqa/TextVQA_0.5.1_val.json"
    content = json.loads(path.read_text())
    content["data"][1]["answers"].pop()
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="'which brand\\?' about image 'aa' has 9 answers"):
        Task.load(BENCHMARK, eval_root)
    content["data"].pop(1)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="has no question 'which brand\\?' about image 'aa'"):
        Task.load(BENCHMARK, eval_root)
