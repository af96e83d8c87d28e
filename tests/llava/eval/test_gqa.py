"""GQA: exact match after LLaVA's conversion, and the breakdowns of GQA's script."""

import json

import pytest

from llava.errors import InputError
from llava.eval.benchmarks.gqa import BENCHMARK, prediction, score, steps
from llava.eval.evaluate import Task
from llava.inference.question import Question


@pytest.mark.parametrize(
    ("text", "compared"),
    [
        ("Table.", "table"),
        ("Left...", "left"),
        ("YES", "yes"),
        ("a dog", "a dog"),
        ("yes. ", "yes. "),
        ("", ""),
    ],
)
def test_what_is_compared(text, compared):
    assert prediction(text) == compared


def test_steps_leave_out_the_final_ones():
    program = [
        {"operation": "select", "argument": "cat (3)"},
        {"operation": "relate", "argument": "table,on,s (4)"},
        {"operation": "query", "argument": "name"},
        {"operation": "exist", "argument": "?"},
        {"operation": "choose name", "argument": "cat|dog"},
    ]
    assert steps({"semantic": program}) == 2


def test_score_of_hand_made_answers(eval_root):
    task = Task.load(BENCHMARK, eval_root)
    result = score(task.questions, ["Table.", "no", "left", None])
    assert result.value == 50.0
    assert result.metrics["correct"] == 2
    assert result.metrics["count"] == 4
    assert result.metrics["by_answer"] == {
        "binary": {"accuracy": 50.0, "count": 2},
        "open": {"accuracy": 50.0, "count": 2},
    }
    assert result.metrics["by_structural"]["choose"] == {"accuracy": 100.0, "count": 1}
    assert result.metrics["by_semantic"]["rel"] == {"accuracy": 100.0, "count": 2}
    assert result.metrics["by_words"]["05"] == {"accuracy": 100.0, "count": 1}
    assert result.metrics["by_steps"] == {"01": {"accuracy": 50.0, "count": 4}}


def test_unbalanced_questions_do_not_count():
    asked = [
        Question("1", "?", gold={"answer": "a", "isBalanced": False}),
        Question("2", "?", gold={"answer": "b"}),
    ]
    assert score(asked, ["a", "c"]).metrics["count"] == 1


def test_question_without_annotation(eval_root):
    path = eval_root / "gqa/data/testdev_balanced_questions.json"
    path.write_text(json.dumps({"1": json.loads(path.read_text())["1"]}))
    with pytest.raises(InputError, match="question 2 of .*llava_gqa_testdev_balanced.jsonl is not in .*testdev"):
        Task.load(BENCHMARK, eval_root)
    path.unlink()
    with pytest.raises(InputError, match="annotation of GQA not found: expected .*testdev_balanced_questions.json"):
        Task.load(BENCHMARK, eval_root)
