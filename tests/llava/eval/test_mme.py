"""MME: the first four characters decide; accuracy, accuracy+ and sums by hand."""

import pytest

from llava.errors import InputError
from llava.eval.benchmarks.mme import BENCHMARK, COGNITION, PERCEPTION, prediction, score
from llava.eval.evaluate import Task
from llava.inference.question import Question


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes", "yes"),
        ("YES.", "yes"),
        ("no, it is not", "no"),
        ("Not", "no"),
        ("know", "no"),
        ("Nope", "no"),
        (" yes", "yes"),
        ("It is yes", "other"),
        ("", "other"),
        ("是", "other"),
    ],
)
def test_reading(text, expected):
    assert prediction(text) == expected


def test_score_of_hand_made_answers(eval_root):
    task = Task.load(BENCHMARK, eval_root)
    assert [q.gold for q in task.questions] == ["yes", "no"] * 4
    assert task.questions[0].group == task.questions[1].group == "existence/0001"
    given = ["Yes", "No", "Yes", "Yes", "maybe", None, "yes", "no"]
    result = score(task.questions, given)
    parts = result.metrics["subtasks"]
    assert parts["existence"] == {"accuracy": 75.0, "accuracy_plus": 50.0, "score": 125.0, "count": 4}
    assert parts["artwork"]["score"] == 0.0
    assert parts["code_reasoning"]["score"] == 200.0
    assert result.metrics["perception"] == 125.0
    assert result.metrics["perception_maximum"] == 400
    assert result.value == result.metrics["perception_percent"] == 31.25
    assert result.metrics["cognition"] == 200.0
    assert result.metrics["cognition_percent"] == 100.0
    assert result.metrics["neither_yes_nor_no"] == 1
    assert len(result.metrics["subtasks_absent"]) == 11


def test_column_is_perception_over_twenty_for_the_whole_benchmark():
    asked, given = [], []
    for number, subtask in enumerate(PERCEPTION + COGNITION):
        for picture in range(4):
            for gold in ("yes", "no"):
                asked.append(Question("q", "?", gold=gold, category=subtask, group=f"{subtask}/{picture}"))
                given.append(gold if picture < number % 5 else "yes")
    result = score(asked, given)
    assert result.metrics["perception_maximum"] == 2000
    assert result.metrics["cognition_maximum"] == 800
    assert result.value == pytest.approx(result.metrics["perception"] / 20)
    assert result.metrics["subtasks_absent"] == []
    assert 50 < result.value < 100


def test_four_questions_about_a_picture_are_two_pairs():
    asked = [Question("q", "?", gold="yes", category="OCR", group="OCR/1") for _ in range(4)]
    assert score(asked, ["yes", "yes", "yes", "no"]).metrics["subtasks"]["OCR"]["accuracy_plus"] == 50.0


def test_release_that_does_not_fit(eval_root):
    path = eval_root / "MME/MME_Benchmark_release_version/existence/0002.txt"
    content = path.read_text()
    path.write_text(content.replace("Is it 0002?", "Is it 3?"))
    with pytest.raises(InputError, match=r"has no question 'Is it 0002\?' in 0002.txt"):
        Task.load(BENCHMARK, eval_root)
    path.write_text(content.replace("\tYes", "\tPerhaps"))
    with pytest.raises(InputError, match="0002.txt, line 1: expected a question, a tab and Yes or No"):
        Task.load(BENCHMARK, eval_root)
    path.unlink()
    with pytest.raises(InputError, match="answers of MME not found"):
        Task.load(BENCHMARK, eval_root)


@pytest.mark.parametrize("place", ["MME_Benchmark_release_version/MME_Benchmark", "images", "images/MME_Benchmark"])
def test_release_as_its_archive_unpacks_and_as_mobilevlm_has_it(eval_root, place):
    """The release's archive has a folder of its own around the subtasks; MobileVLM calls it ``images``."""
    expected = Task.load(BENCHMARK, eval_root).questions
    kept = (eval_root / "MME/MME_Benchmark_release_version").rename(eval_root / "kept")
    (eval_root / "MME" / place).parent.mkdir(exist_ok=True)
    kept.rename(eval_root / "MME" / place)
    task = Task.load(BENCHMARK, eval_root)
    assert [question.gold for question in task.questions] == [question.gold for question in expected]
    task.check_pictures()
