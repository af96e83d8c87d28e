import json
import random
import re

import pytest

from llava.data.annotations import json_stream
from llava.data.annotations.json_stream import Row, iter_rows
from llava.errors import InputError


@pytest.fixture(params=[1, 7, 64, 1 << 20])
def window(request, monkeypatch):
    """Windows from one byte (every entry is cut everywhere) to the real size."""
    monkeypatch.setattr(json_stream, "WINDOW_BYTES", request.param)
    return request.param


def random_value(rng, depth=0):
    kinds = ["text", "number", "word"] + (["list", "object"] if depth < 3 else [])
    kind = rng.choice(kinds)
    if kind == "text":
        return "".join(rng.choice('ab"\\/\n\t é山🐐\u2028\u0001,[]{}') for _ in range(rng.randint(0, 12)))
    if kind == "number":
        return rng.choice([0, -1, 12345678901234567890, 1.5, -2e-30, 1e300])
    if kind == "word":
        return rng.choice([True, False, None])
    if kind == "list":
        return [random_value(rng, depth + 1) for _ in range(rng.randint(0, 4))]
    return {f"k{index}é": random_value(rng, depth + 1) for index in range(rng.randint(0, 4))}


@pytest.mark.parametrize("seed", range(12))
def test_same_values_as_the_whole_file_at_once(tmp_path, window, seed):
    rng = random.Random(seed)
    values = [random_value(rng) for _ in range(rng.randint(0, 12))]
    text = json.dumps(values, indent=rng.choice([None, 1]), ensure_ascii=rng.random() < 0.5)
    path = tmp_path / "x.json"
    path.write_text(rng.choice(["", " \n", "\ufeff"]) + text + rng.choice(["", "\n", "  \r\n"]), encoding="utf-8")
    rows = list(iter_rows(path))
    assert [row.value for row in rows] == values
    assert [row.index for row in rows] == list(range(len(values)))


def test_lines_and_progress(tmp_path, window):
    path = tmp_path / "x.json"
    path.write_text('[\n{"a": 1},\n\n  {"a":\n 2}, {"b": "\u00e9"}\n]\n', encoding="utf-8")
    read = []
    assert [row.line for row in iter_rows(path, read.append)] == [2, 4, 5]
    assert sum(read) == path.stat().st_size


BROKEN = [
    ('[{"a": 1}, {"a" 2}]', "line 1, column 17 (entry 1)", "':'"),
    ('[{"a": 1},\n {"a": 2}\n {"a": 3}]', "line 3, column 2 (entry 1)", "expected ',' or ']'"),
    ('[{"a": 1},\n{"a": "x\ny"}]', "line 2, column 9 (entry 1)", "control character"),
    ('[{"a": 1}, {"a": 2}', "line 1, column 20 (entry 1)", "file ends inside the list"),
    ('[{"a": 1},\n{"a": [1, 2', "line 2, column 12 (entry 1)", "','"),
    ('[{"a": 1}, {"a": "never closed]', "line 1, column 18 (entry 1)", "Unterminated"),
    ('[{"a": 1},]', "line 1, column 11 (entry 1)", "Expecting value"),
    ('[{"a": 1}]\n[{"a": 2}]', "line 2, column 1", "more text"),
    ('[{"a": nul}]', "line 1, column 8 (entry 0)", "Expecting value"),
    ('[{"a": "\\u12"}]', "line 1, column 10 (entry 0)", "\\uXXXX"),
    ("[", "line 1, column 2 (entry 0)", "Expecting value"),
]


@pytest.mark.parametrize(("text", "place", "words"), BROKEN)
def test_broken_lists_are_located(tmp_path, window, text, place, words):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        list(iter_rows(path))
    assert str(path) in str(error.value)
    assert place in str(error.value)
    assert words in str(error.value)


def test_a_broken_entry_is_found_without_reading_on(tmp_path):
    """An error early in a big file must not pull the rest of it into memory."""
    path = tmp_path / "x.json"
    path.write_text('[{"a": 1}, {"a" 2},' + '{"a": 3},' * 500_000 + '{"a": 4}]')
    read = []
    with pytest.raises(InputError, match="entry 1"):
        list(iter_rows(path, read.append))
    assert sum(read) <= json_stream.WINDOW_BYTES


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"data": []}', "begins with '{'.*jsonl"), ("", "begins with nothing"), ("7", "begins with '7'")],
)
def test_something_else_than_a_list(tmp_path, text, words):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        list(iter_rows(path))


def test_not_utf8(tmp_path, window):
    path = tmp_path / "x.json"
    path.write_bytes(b'[{"a": 1},\n{"a": "caf\xe9"}]')
    with pytest.raises(InputError, match=re.escape(str(path)) + ".*not UTF-8.*byte 21"):
        list(iter_rows(path))


def test_json_lines(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2}\r\n{"a" 3}\n{"a": "\xff"}\n[4]')
    rows = list(iter_rows(path, keep_broken=True))
    assert rows[0] == Row(0, 1, {"a": 1})
    assert rows[1] == Row(1, 3, {"a": 2})
    assert (rows[2].index, rows[2].line, rows[2].value) == (2, 4, None)
    assert "broken JSON" in rows[2].error
    assert "not UTF-8" in rows[3].error
    assert rows[4] == Row(4, 6, [4])
    with pytest.raises(InputError, match=r"x\.jsonl, line 4 \(entry 2\): broken JSON"):
        list(iter_rows(path))


def test_missing_file_and_wrong_ending(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        list(iter_rows(tmp_path / "no.json"))
    (tmp_path / "x.csv").write_text("a,b")
    with pytest.raises(InputError, match="'.csv', expected '.json' or '.jsonl'"):
        list(iter_rows(tmp_path / "x.csv"))
