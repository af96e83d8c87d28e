"""POPE: the reading of long answers, and the figures of each category by hand."""

import json

import pytest

from llava.errors import InputError
from llava.eval.benchmarks.pope import BENCHMARK, Confusion, says_no, score
from llava.eval.evaluate import Task


@pytest.mark.parametrize(
    ("text", "no"),
    [
        ("No", True),
        ("no", True),
        ("Yes", False),
        ("No, there is a car.", True),
        ("no.", True),
        ("There is not a cat. Yes.", True),
        ("Yes. There is no dog.", False),  # only the first sentence counts
        ("NO", False),  # the published script knows No, no and not only
        ("Not at all", False),
        ("Nothing", False),
        ("There isn't", False),
        ("No\nmore", False),  # words are parted by spaces only
        ("I do not know", True),
        ("", False),
        ("不", False),
    ],
)
def test_reading(text, no):
    assert says_no(text) is no


def test_figures_by_hand():
    confusion = Confusion(tp=3, fp=1, tn=4, fn=2)
    metrics = confusion.metrics()
    assert metrics["accuracy"] == 70.0
    assert metrics["precision"] == 75.0
    assert metrics["recall"] == 60.0
    assert metrics["f1"] == pytest.approx(2 * 75 * 60 / 135)
    assert metrics["yes_ratio"] == 40.0
    assert Confusion(tn=2).metrics()["f1"] == 0.0


def test_score_of_hand_made_answers(eval_root):
    task = Task.load(BENCHMARK, eval_root)
    assert [q.gold for q in task.questions] == ["yes", "no"] * 6
    adversarial = ["Yes", "No", "yes, it is", "no"]  # all right
    popular = ["Yes", "Yes", "No", "No"]  # one of each: precision, recall and F1 a half
    random = ["Yes", None, "Yes", "No"]  # a missing answer is wrong: here a false positive
    result = score(task.questions, adversarial + popular + random)
    parts = result.metrics["by_category"]
    assert parts["adversarial"]["f1"] == 100.0
    assert parts["popular"] == {
        "accuracy": 50.0,
        "precision": 50.0,
        "recall": 50.0,
        "f1": 50.0,
        "yes_ratio": 50.0,
        "count": 4,
    }
    assert parts["random"]["precision"] == pytest.approx(200 / 3)
    assert parts["random"]["f1"] == pytest.approx(80.0)
    assert result.value == result.metrics["mean_f1"] == pytest.approx((100 + 50 + 80) / 3)
    assert result.metrics["mean_accuracy"] == pytest.approx((100 + 50 + 75) / 3)
    assert result.metrics["mean_yes_ratio"] == pytest.approx((50 + 50 + 75) / 3)


def test_labels_in_another_order_are_found_by_wording(eval_root):
    path = eval_root / "pope/coco/coco_pope_random.json"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[1:], lines[0]]) + "\n")
    assert [q.gold for q in Task.load(BENCHMARK, eval_root).questions] == ["yes", "no"] * 6


def test_labels_of_another_question_file(eval_root):
    path = eval_root / "pope/coco/coco_pope_popular.json"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["image"] = "other.jpg"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match="has no label for question 1000001 .*Is there a cat in the image"):
        Task.load(BENCHMARK, eval_root)
    path.unlink()
    with pytest.raises(InputError, match="labels of POPE's category 'popular' not found"):
        Task.load(BENCHMARK, eval_root)
