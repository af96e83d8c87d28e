"""MMBench: the table, options, reading of answers, both accuracies, the workbook."""

import sys

import pytest

from llava.errors import InputError
from llava.eval.benchmarks.mmbench import BENCHMARK, choices, letter, score
from llava.eval.evaluate import Task
from llava.eval.mmbench_workbook import write_workbook

OPTIONS = {"A": "a red ball", "B": "Green", "C": "blue"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(C)", "C"),
        ("A. a red ball", "A"),
        ("The answer is B.", "B"),
        ("The answer is B", "B"),
        ("**C**", "C"),
        ("D", None),  # not an option
        ("A or B", None),
        ("green", "B"),
        ("It is GREEN of course", "B"),
        ("A green thing it is", "B"),  # "A" is an article here
        ("A", "A"),
        ("green and blue", None),
        ("b", None),
        ("", None),
        ("ответ B", "B"),
        ("word " * 400 + "B", "B"),
    ],
)
def test_reading(text, expected):
    assert letter(text, OPTIONS) == expected


def test_options_end_at_the_first_empty_one():
    assert choices({"A": "x", "B": "y", "C": "", "D": "z"}) == {"A": "x", "B": "y"}
    assert choices({"A": "x", "B": "None", "C": "y"}) == {"A": "x"}


def test_table_is_read(eval_root):
    questions = Task.load(BENCHMARK, eval_root).questions
    assert [q.question_id for q in questions] == [5, 1000005, 2000005, 3000005, 8, 1000008]
    assert questions[1].text == (
        "A hint.\nWhich colour?\nA. green\nB. blue\nC. grey\nD. red\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert [q.gold for q in questions] == ["A", "D", "C", "B", "B", "A"]
    assert questions[4].text.startswith("How many?\nA. one\nB. two\nAnswer")
    # a rotation names the row that holds the picture
    assert questions[3].picture.load().getpixel((3, 3)) == (220, 30, 30)
    assert questions[3].picture.identity == questions[0].picture.identity != questions[4].picture.identity


def test_plain_and_circular_accuracy(eval_root):
    task = Task.load(BENCHMARK, eval_root)
    all_a = score(task.questions, ["A"] * 6)
    assert all_a.value == all_a.metrics["circular_accuracy"] == 0.0
    assert all_a.metrics["plain_accuracy"] == 50.0
    assert all_a.metrics["row_accuracy"] == pytest.approx(100 / 3)
    one = score(task.questions, ["A", "D. red", "grey", None, "two", "A"])
    assert one.value == 50.0
    assert one.metrics["plain_accuracy"] == 100.0
    assert one.metrics["by_category"] == {
        "color": {"accuracy": 0.0, "count": 1},
        "count": {"accuracy": 100.0, "count": 1},
    }
    assert one.metrics["by_l2-category"] == {"perception": {"accuracy": 50.0, "count": 2}}
    assert (one.metrics["rows"], one.metrics["count"], one.metrics["unreadable"]) == (6, 2, 0)


def test_table_without_answers_is_not_scored(eval_root):
    path = eval_root / "mmbench/mmbench_dev_20230712.tsv"
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    path.write_text("\n".join("\t".join(cells[:7] + cells[8:]) for cells in lines) + "\n")
    task = Task.load(BENCHMARK, eval_root)
    assert "no answers" in score(task.questions, ["A"] * 6).metrics["note"]


def test_workbook_holds_every_question_and_raw_answers(eval_root, tmp_path):
    openpyxl = pytest.importorskip("openpyxl", reason="the `eval` extra")
    task = Task.load(BENCHMARK, eval_root)
    where = write_workbook(task.questions, ["A", "=1+1", "b\x07ell", None, "ответ", "B"], tmp_path)
    rows = list(openpyxl.load_workbook(where).active.iter_rows(values_only=True))
    assert rows[0] == ("index", "question", "A", "B", "C", "D", "prediction", "answer", "split")
    assert rows[1] == (5, "Which colour?", "red", "green", "blue", "grey", "A", "A", "dev")
    assert [row[6] or "" for row in rows[1:]] == ["A", "=1+1", "b ell", "", "ответ", "B"]
    assert len(rows) == 7


def test_without_openpyxl_it_says_so(eval_root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    task = Task.load(BENCHMARK, eval_root)
    assert "openpyxl is not installed" in write_workbook(task.questions, ["A"] * 6, tmp_path)
    assert not list(tmp_path.glob("*.xlsx"))


def test_damaged_tables(eval_root):
    path = eval_root / "mmbench/mmbench_dev_20230712.tsv"
    content = path.read_text()
    path.write_text(content.replace("question\thint", "text\thint"))
    with pytest.raises(InputError, match="expected MMBench's columns, missing question"):
        Task.load(BENCHMARK, eval_root)
    path.write_text(content.replace("1000005", "x5"))
    with pytest.raises(InputError, match="index 'x5' is not a whole number"):
        Task.load(BENCHMARK, eval_root)
    path.write_text(content.replace("\tB\tcount", "\tY\tcount"))
    with pytest.raises(InputError, match="index 8 has answer 'Y'"):
        Task.load(BENCHMARK, eval_root)


def test_picture_that_is_no_picture(eval_root):
    path = eval_root / "mmbench/mmbench_dev_20230712.tsv"
    path.write_text(path.read_text().replace("iVBOR", "AAAAA"))
    task = Task.load(BENCHMARK, eval_root)
    with pytest.raises(InputError, match="image of index 5 in .*tsv cannot be read"):
        task.questions[0].picture.load()
