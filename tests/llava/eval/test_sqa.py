"""ScienceQA: letters as LLaVA's script reads them, both accuracies, ScienceQA's groups."""

import json

import pytest

from llava.errors import InputError
from llava.eval.benchmarks.sqa import BENCHMARK, lenient_letter, letter, score
from llava.eval.evaluate import Task


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("A", "A", "A"),
        ("E", "E", "E"),
        ("F", None, None),
        ("a", None, None),
        ("A.", None, "A"),
        ("B. green", "B", "B"),
        ("B.green", None, None),
        ("(C)", None, "C"),
        ("(C) blue", None, "C"),
        ("D: because", None, "D"),
        ("The answer is D.", "D", "D"),
        ("The answer is D", None, "D"),
        ("So, the answer is D.", None, None),
        ("Hence. The answer is B. BECAUSE: it is.", "B", "B"),
        ("The answer is A. The answer is B.", None, "A"),
        ("The answer is Zebra.", "Z", "Z"),
        ("A cat", None, "A"),
        ("Apple", None, None),
        ("", None, None),
        ("答案是 A", None, None),
    ],
)
def test_letters(text, strict, lenient):
    assert letter(text) == strict
    assert lenient_letter(text) == lenient


def test_prompt_carries_the_suffix_and_no_marker(eval_root):
    questions = Task.load(BENCHMARK, eval_root).questions
    suffix = "Answer with the option's letter from the given choices directly."
    assert questions[0].text == f"Question: Which one?\nOptions: (A) a (B) b\n{suffix}"
    assert [q.picture is None for q in questions] == [False, False, True]


def test_score_of_hand_made_answers(eval_root):
    task = Task.load(BENCHMARK, eval_root)
    result = score(task.questions, ["A", "C. it is", "D"])  # D: the third question has two choices
    assert result.value == 100.0  # both questions with a picture
    assert result.metrics["accuracy"] == pytest.approx(200 / 3)
    assert result.metrics["unreadable"] == 1
    assert (result.metrics["count"], result.metrics["image_count"]) == (3, 2)
    groups = result.metrics["by_group"]
    assert groups["NAT"] == {"accuracy": 100.0, "count": 1}
    assert groups["LAN"] == groups["NO"] == {"accuracy": 0.0, "count": 1}
    assert groups["TXT"] == {"accuracy": 100.0, "count": 1}
    assert groups["IMG"] == {"accuracy": 100.0, "count": 2}
    assert groups["G1-6"] == {"accuracy": 50.0, "count": 2}
    assert groups["G7-12"] == {"accuracy": 100.0, "count": 1}


def test_lenient_accuracy_is_reported_beside(eval_root):
    task = Task.load(BENCHMARK, eval_root)
    result = score(task.questions, ["A.", None, "(B)"])
    assert result.value == 0.0
    assert result.metrics["image_accuracy_lenient"] == 50.0
    assert result.metrics["accuracy_lenient"] == pytest.approx(200 / 3)
    assert result.metrics["unreadable"] == 2  # a missing answer is counted as missing, not as unreadable


def test_incomplete_question_file(eval_root):
    path = eval_root / "scienceqa/llava_test_CQM-A.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:2]))
    with pytest.raises(InputError, match=r"lacks 1 of the 3 questions of the test split \(first: 13\)"):
        Task.load(BENCHMARK, eval_root)
    path.write_text(json.dumps([{"question_id": 3}]))
    with pytest.raises(InputError, match="entry 0: expected 'id' and 'conversations'"):
        Task.load(BENCHMARK, eval_root)
