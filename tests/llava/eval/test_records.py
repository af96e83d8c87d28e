"""Questions and answers: keys, sampling, chunks, and the matching that counts everything unusual."""

import pytest

from llava.errors import InputError
from llava.eval.records import Answer, chunk, match_answers, read_answers, subset, with_keys
from llava.inference.question import Question


def questions(*ids, text="Is it?"):
    return with_keys(Question(name, text) for name in ids)


def test_repeated_ids_get_different_keys():
    assert [q.key for q in questions("a", "b", "a", "a", 3)] == ["a", "b", "a#2", "a#3", "3"]


def test_chunks_cover_everything_once_and_are_even():
    asked = questions(*range(11))
    for count in (1, 2, 3, 8, 11, 20):
        parts = [chunk(asked, count, index) for index in range(count)]
        assert sum(parts, []) == asked
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    with pytest.raises(InputError, match="--chunk-idx is 2 of --num-chunks 2"):
        chunk(asked, 2, 2)


def test_limit_spreads_over_the_file_and_keeps_groups_whole():
    asked = questions(*range(100))
    assert [q.question_id for q in subset(asked, 4)] == [0, 25, 50, 75]
    assert subset(asked, None) == subset(asked, 500) == asked
    pairs = with_keys(Question(i, "?", group=str(i // 2)) for i in range(20))
    assert [q.question_id for q in subset(pairs, 4)] == [0, 1, 10, 11]
    with pytest.raises(InputError, match="--limit is 0"):
        subset(asked, 0)


def answer(name, text, prompt="Is it?", **metadata):
    return Answer(name, prompt, text, metadata=metadata)


def test_answers_are_matched_by_key_then_prompt_then_id():
    asked = with_keys([Question("a", "Is it?"), Question("a", "Is it not?"), Question("b", "Where?\nShort.")])
    by_key = [answer("a", "no", key="a#2"), answer("a", "yes", key="a"), answer("b", "here", key="b")]
    assert match_answers(asked, by_key).texts == ["yes", "no", "here"]
    foreign = [answer("a", "no", "<image>\nIs it  not?"), answer("b", "here", "Where?"), answer("a", "yes")]
    assert match_answers(asked, foreign).texts == ["yes", "no", "here"]


def test_ids_match_whether_numbers_or_text():
    assert match_answers(questions(7), [answer("7", "x", "other")]).texts == ["x"]


def test_everything_unusual_is_counted_and_named():
    asked = questions(*"abcdefg")
    given = [
        answer("a", "fine"),
        answer("b", "  "),
        answer("c", "first"),
        answer("c", "café"),
        answer("d", "x" * 501),
        answer("zzz", "lost"),
        answer("e", "cut", finish="length"),
        answer("f", "x" * 500, finish="stop"),
    ]
    matched = match_answers(asked, given)
    assert matched.texts == ["fine", "  ", "café", "x" * 501, "cut", "x" * 500, None]
    assert matched.report == {
        "questions": 7,
        "answered": 6,
        "missing": 1,
        "empty": 1,
        "non_ascii": 1,
        "very_long": 1,
        "at_token_limit": 1,
        "duplicate": 1,
        "unknown_id": 1,
        "examples": {
            "missing": ["g"],
            "empty": ["b"],
            "non_ascii": ["c"],
            "very_long": ["d"],
            "at_token_limit": ["e"],
            "duplicate": ["c"],
            "unknown_id": ["zzz"],
        },
    }


def test_answers_of_other_programs_are_read(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(
        '{"question_id": 1, "prompt": "p", "text": "yes", "answer_id": "x", "metadata": {}}\n'
        '\n{"question_id": "2", "text": null}\n{"question_id": 3, "text": "no"}'
    )
    read = read_answers(path)
    assert [(a.question_id, a.text) for a in read] == [(1, "yes"), ("2", ""), (3, "no")]


def test_cut_last_line_is_left_out_but_not_a_broken_one_before(tmp_path):
    path = tmp_path / "answers.jsonl"
    good = '{"question_id": 1, "text": "yes"}\n'
    path.write_text(good + '{"question_id": 2, "te')
    assert len(read_answers(path)) == 1
    path.write_text('{"question_id": 2, "te\n' + good)
    with pytest.raises(InputError, match=r"answers\.jsonl, line 1: not valid JSON"):
        read_answers(path)
    path.write_text('{"id": 2}\n')
    with pytest.raises(InputError, match="expected a JSON object with 'question_id' and 'text'"):
        read_answers(path)
    with pytest.raises(InputError, match="does not exist"):
        read_answers(tmp_path / "none.jsonl")
