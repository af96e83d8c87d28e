"""Question files of one's own: what is read, and what is refused with the line it is in."""

import json

import pytest
from PIL import Image

from llava.errors import InputError
from llava.eval.questions import read_questions


@pytest.fixture
def write(tmp_path):
    """A question file of these lines, objects or text, beside a picture ``a.png``."""
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    def make(*lines):
        path = tmp_path / "questions.jsonl"
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        path.write_text(text + "\n", encoding="utf-8")
        return path

    return make


def test_what_is_read(write, tmp_path):
    path = write(
        "\ufeff" + json.dumps({"question_id": 7, "image": "a.png", "text": "Où ?", "category": "x"}),
        "",
        {"question_id": "b", "text": "Why?", "image": None},
        {"question_id": "c", "text": "<image>\nHow?", "image": ""},
    )
    first, second, third = read_questions(path)
    assert (first.question_id, first.text, first.key) == (7, "Où ?", "7")
    assert first.picture is not None and first.picture.path == tmp_path / "a.png"
    assert second.picture is None and third.picture is None
    assert read_questions(path, tmp_path)[0].picture == first.picture


GOOD = {"question_id": 1, "text": "What?"}


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"question_id": 2, "te', r"questions.jsonl, line 2: not valid JSON .*one object per line"),
        ("[1]", r"line 2: expected an object with question_id and text, found '\[1\]'"),
        ({"id": 2, "text": "?"}, "line 2: the question has no 'question_id'; it has id, text"),
        ({"question_id": 2}, "line 2: the question has no 'text'"),
        ({"question_id": 1.5, "text": "?"}, "line 2: question_id is 1.5, expected text or a whole number"),
        ({"question_id": 2, "text": " "}, "line 2: text is ' ', expected a question"),
        ({"question_id": 2, "text": "?", "image": ["a.png"]}, "line 2: image is .*the path of one image"),
        ({"question_id": "1", "text": "?"}, "line 2: question_id '1' is also used in line 1; .*give every question"),
        ({"question_id": 2, "text": "?", "image": "b.png"}, r"1 of 2 questions .*\(line 2: .*b.png\).*--image-folder"),
    ],
)
def test_what_is_refused(line, message, write):
    with pytest.raises(InputError, match=message):
        read_questions(write(GOOD, line))


def test_many_missing_pictures_are_counted_and_the_first_named(write):
    rows = [{"question_id": n, "text": "?", "image": f"{n}.png"} for n in range(9)]
    with pytest.raises(InputError, match=r"9 of 9 questions.*line 1: .*0.png; .*line 5: .*4.png and 4 more\)"):
        read_questions(write(*rows))


def test_files_that_are_none(write, tmp_path):
    with pytest.raises(InputError, match="questions.jsonl has no question"):
        read_questions(write("", " "))
    with pytest.raises(InputError, match="question file .*none.jsonl does not exist"):
        read_questions(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="a.png cannot be read as UTF-8 text"):
        read_questions(tmp_path / "a.png")
