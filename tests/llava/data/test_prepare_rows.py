import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llava.data.annotations.json_stream import Row
from llava.errors import InputError
from llava.prepare.rows import convert, read_rows

ASK = "<image>\nWhat is it?"


def make(value, index=0, prefix=""):
    return convert(Row(index, index + 1, value), "mix", prefix)


def test_a_good_row_is_unchanged_but_for_other_keys(talk):
    row = {"id": "1", "image": "coco/train2017/1.jpg", "model": "", "conversations": talk(ASK, "A cat.")}
    result = make(row)
    assert result.entry == {"id": "1", "image": "coco/train2017/1.jpg", "conversations": talk(ASK, "A cat.")}
    assert (result.reason, result.changes) == ("", [])
    assert "model" in row


@pytest.mark.parametrize(
    "found, written, change",
    [(17, "17", ["id turned into text"]), (None, "mix-4", ["id made"]), ("", "mix-4", ["id made"]), ("a", "a", [])],
)
def test_ids(talk, found, written, change):
    result = make({"id": found, "conversations": talk("q", "a")}, index=4)
    assert result.entry == {"id": written, "conversations": talk("q", "a")}
    assert result.changes == change
    assert make({"conversations": talk("q", "a")}, index=4).entry["id"] == "mix-4"


@pytest.mark.parametrize("empty", ["", []])
def test_empty_image_is_text_only(talk, empty):
    result = make({"id": "1", "image": empty, "conversations": talk("q", "a")})
    assert "image" not in result.entry and result.changes == ["empty image left out"]
    assert make({"id": "1", "image": None, "conversations": talk("q", "a")}).changes == []


@pytest.mark.parametrize(
    "found, prefix, written",
    [
        ("00453/004539375.jpg", "llava/images", "llava/images/00453/004539375.jpg"),
        ("llava/images/1.jpg", "llava/images", "llava/images/1.jpg"),
        ("./coco//1.jpg", "", "coco/1.jpg"),
        ("coco\\train2017\\1.jpg", "", "coco/train2017/1.jpg"),
    ],
)
def test_image_paths(talk, found, prefix, written):
    result = make({"id": "1", "image": found, "conversations": talk(ASK, "a")}, prefix=prefix)
    assert result.entry["image"] == written and result.images == [written]


def test_several_images_stay_a_list(talk):
    result = make({"id": "1", "image": ["a.jpg", "b.jpg"], "conversations": talk("<image><image> q", "a")}, prefix="p")
    assert result.entry["image"] == ["p/a.jpg", "p/b.jpg"]
    one = make({"id": "1", "image": ["a.jpg"], "conversations": talk(ASK, "a")})
    assert one.entry["image"] == "a.jpg"


def test_marker_is_added_to_the_first_question(talk):
    turns = [{"from": "gpt", "value": "Hello."}, *talk("What?", "A cat.", "And?", "A dog.")]
    result = make({"id": "1", "image": "a.jpg", "conversations": turns})
    assert [turn["value"] for turn in result.entry["conversations"]] == [
        "Hello.", "<image>\nWhat?", "A cat.", "And?", "A dog.",
    ]  # fmt: skip
    assert result.changes == ["<image> marker added"]
    assert turns[1]["value"] == "What?"


@pytest.mark.parametrize(
    "row, reason",
    [
        ({"image": "http://a.org/1.jpg"}, "image is a URL"),
        ({"image": "/data/1.jpg"}, "image path outside the folder"),
        ({"image": "../1.jpg"}, "image path outside the folder"),
        ({"image": "C:\\1.jpg"}, "image path outside the folder"),
        ({"image": 7}, "malformed entry"),
        ({"image": {"bytes": 1}}, "malformed entry"),
        ({"image": ["a.jpg", "b.jpg"]}, "<image> count"),
        ({}, "<image> count"),  # a question about an image that is not there
        ({"conversations": [{"from": "human", "value": ASK}]}, "malformed conversation"),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": " "}]}, "empty text"),
        ({"conversations": [{"from": "user", "value": "q"}]}, "malformed conversation"),
        ({"conversations": "q"}, "malformed entry"),
    ],
)
def test_rows_that_cannot_be_used(talk, row, reason):
    result = make({"id": "1", "conversations": talk(ASK, "a")} | row)
    assert result.entry is None and result.reason == reason and result.detail


@pytest.mark.parametrize("value", [None, 3, "text", ["list"]])
def test_rows_that_are_no_objects(value):
    assert make(value).reason == "malformed entry"


def test_moved_images(talk):
    result = make({"id": "1", "image": ["x/y/a.jpg", "x/yz/b.jpg"], "conversations": talk("<image><image>", "a")})
    result.move_images("x/y", "z")
    assert result.images == result.entry["image"] == ["z/a.jpg", "x/yz/b.jpg"]


def test_json_lines_with_a_broken_line(tmp_path, talk):
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": 1, \n' + json.dumps({"id": 2, "conversations": talk("q", "a")}) + "\n")
    results = [convert(row, "mix") for row in read_rows(path)]
    assert [result.reason for result in results] == ["broken JSON", ""]


def test_parquet_gives_the_same_rows(tmp_path, talk, monkeypatch):
    monkeypatch.setattr("llava.prepare.rows.ROWS_PER_BATCH", 2)
    rows = [{"id": str(i), "image": f"a/{i}.jpg", "conversations": talk(ASK, f"It is {i}.")} for i in range(5)]
    rows.append({"id": "text", "image": None, "conversations": talk("q", "a")})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    (tmp_path / "x.json").write_text(json.dumps(rows))
    read = []
    from_parquet = [convert(row, "mix") for row in read_rows(tmp_path / "x.parquet", read.append)]
    assert from_parquet == [convert(row, "mix") for row in read_rows(tmp_path / "x.json")]
    assert len(from_parquet) == 6 and all(result.entry for result in from_parquet)
    assert sum(read) == pytest.approx((tmp_path / "x.parquet").stat().st_size, rel=0.01)


def test_parquet_with_the_pictures_inside(tmp_path):
    pq.write_table(
        pa.Table.from_pylist([{"id": "1", "image": {"bytes": b"x", "path": "a.jpg"}}]), tmp_path / "x.parquet"
    )
    with pytest.raises(InputError, match="has image data .* expected paths"):
        list(read_rows(tmp_path / "x.parquet"))


def test_broken_parquet(tmp_path):
    pq.write_table(pa.Table.from_pylist([{"id": "1"}] * 1000), tmp_path / "x.parquet")
    (tmp_path / "x.parquet").write_bytes((tmp_path / "x.parquet").read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        list(read_rows(tmp_path / "x.parquet"))
    with pytest.raises(InputError, match="does not exist"):
        list(read_rows(tmp_path / "y.parquet"))


def test_truncated_list(tmp_path, talk):
    text = json.dumps([{"id": str(i), "conversations": talk("q", "a")} for i in range(9)])
    (tmp_path / "x.json").write_text(text[:-40])
    with pytest.raises(InputError, match=r"x.json, line 1, column .*\(entry 8\).*download was incomplete"):
        list(read_rows(tmp_path / "x.json"))
