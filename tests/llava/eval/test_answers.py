"""Answers on disk: kills, restarts, several processes, other models."""

import json

import pytest

from llava.errors import InputError
from llava.eval.answers import AnswerWriter, drop_partial_line, merge_parts, part_path, settings_id
from llava.eval.records import with_keys
from llava.inference.question import Question

SETTINGS = {"model": "tiny", "dtype": "float32"}
QUESTIONS = with_keys(Question(name, f"{name}?") for name in ("a", "b", "a", "c"))


def write(folder, keys, settings=SETTINGS, **kwargs):
    with AnswerWriter(folder, settings, "tiny", **kwargs) as writer:
        for question in QUESTIONS:
            if question.key in keys and question.key not in writer.done:
                writer.write(question, f"answer to {question.key}", "stop")
    return writer


def test_lines_have_llavas_keys(tmp_path):
    write(tmp_path, ["a#2"])
    (line,) = part_path(tmp_path, 0, 1).read_text().splitlines()
    row = json.loads(line)
    assert list(row) == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
    assert (row["question_id"], row["prompt"], row["model_id"]) == ("a", "a?", "tiny")
    assert row["metadata"] == {"key": "a#2", "settings": settings_id(SETTINGS), "finish": "stop"}
    assert len(row["answer_id"]) > 10


def test_restart_knows_what_is_done_and_drops_a_half_written_line(tmp_path):
    write(tmp_path, ["a", "b"])
    path = part_path(tmp_path, 0, 1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])  # killed while the second answer was written
    writer = AnswerWriter(tmp_path, SETTINGS, "tiny")
    assert writer.done == {"a"}
    assert path.read_bytes() == whole[: whole.index(b"\n") + 1]
    write(tmp_path, ["a", "b", "c"])
    assert [a.metadata["key"] for a in merge_parts(tmp_path, QUESTIONS, SETTINGS)] == ["a", "b", "c"]


def test_kill_in_the_middle_of_a_character(tmp_path):
    path = tmp_path / "part.jsonl"
    path.write_bytes('{"text": "ok"}\n{"text": "é'.encode()[:-1])
    drop_partial_line(path)
    assert path.read_text() == '{"text": "ok"}\n'
    path.write_bytes(b'{"te')
    drop_partial_line(path)
    assert path.read_bytes() == b""


def test_processes_share_the_work_and_are_merged_in_order(tmp_path):
    write(tmp_path, ["a#2", "c"], chunk_idx=1, num_chunks=2)
    write(tmp_path, ["a", "b"], chunk_idx=0, num_chunks=2)
    merged = merge_parts(tmp_path, QUESTIONS, SETTINGS)
    assert [a.metadata["key"] for a in merged] == ["a", "b", "a#2", "c"]
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == [f"answer to {key}" for key in ("a", "b", "a#2", "c")]
    # with another number of processes nothing is asked again
    assert AnswerWriter(tmp_path, SETTINGS, "tiny", 0, 3).done == {"a", "b", "a#2", "c"}


def test_other_settings_are_an_error_that_says_what_differs(tmp_path):
    write(tmp_path, ["a"])
    before = part_path(tmp_path, 0, 1).read_bytes()
    other = {**SETTINGS, "model": "big"}
    with pytest.raises(InputError, match="model: 'tiny' there, 'big' now.*--overwrite"):
        AnswerWriter(tmp_path, other, "big")
    with pytest.raises(InputError, match="model: 'tiny' there, 'big' now"):
        merge_parts(tmp_path, QUESTIONS, other)
    assert part_path(tmp_path, 0, 1).read_bytes() == before
    assert json.loads((tmp_path / "settings.json").read_text()) == SETTINGS


def test_overwrite_begins_anew(tmp_path):
    write(tmp_path, ["a", "b"])
    write(tmp_path, ["c"], chunk_idx=1, num_chunks=2)
    other = {**SETTINGS, "model": "big"}
    for index in (0, 1):
        writer = write(tmp_path, ["a", "b", "a#2", "c"][index::2], other, chunk_idx=index, num_chunks=2, overwrite=True)
        assert writer.done <= {"a", "a#2"}
    merged = merge_parts(tmp_path, QUESTIONS, other, overwrite=True, num_chunks=2)
    assert {a.metadata["settings"] for a in merged} == {settings_id(other)}
    assert [a.metadata["key"] for a in merged] == ["a", "b", "a#2", "c"]
    assert not part_path(tmp_path, 0, 1).exists()
    assert len(merge_parts(tmp_path, QUESTIONS, other)) == 4


def test_nothing_to_merge(tmp_path):
    with pytest.raises(InputError, match="no answers in .*parts"):
        merge_parts(tmp_path, QUESTIONS, SETTINGS)
