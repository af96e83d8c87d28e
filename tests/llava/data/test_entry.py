import random

import pytest

from llava.data.annotations import entry as module
from llava.data.annotations.entry import Entry, EntryError, check_conversation, parse_entry


def test_a_good_entry(talk):
    raw = {
        "id": 7,
        "image": "a.png",
        "conversations": talk("<image>\nWhat is it?", "A goat."),
        "score": [1, "x"],
    }
    expected = Entry("7", ["a.png"], talk("<image>\nWhat is it?", "A goat."), length=6)
    assert parse_entry(raw) == expected


@pytest.mark.parametrize("image", [None, [], "missing key"])
def test_text_only_is_negative(talk, image):
    raw = {"conversations": talk("one two", "three")} | ({} if image == "missing key" else {"image": image})
    entry = parse_entry(raw)
    assert (entry.image, entry.length, entry.problem, entry.id) == ([], -3, "", "")


def test_several_images(talk):
    entry = parse_entry({"image": ["a", "b"], "conversations": talk("<image><image>", "x")})
    assert (entry.image, entry.problem) == (["a", "b"], "")


@pytest.mark.parametrize(
    ("raw", "kind", "words"),
    [
        ([1, 2], "malformed entry", r"a list ([1, 2]), expected an object"),
        ("text", "malformed entry", 'text ("text")'),
        ({}, "malformed entry", "no 'conversations' (keys found: none)"),
        ({"id": 1, "text": "x"}, "malformed entry", "(keys found: id, text)"),
        ({"conversations": "hi"}, "malformed entry", "expected a list of turns"),
        ({"conversations": ["hi"]}, "malformed entry", "turn 0 is text"),
        ({"conversations": [{"from": "human"}]}, "malformed entry", "turn 0: 'value' is missing"),
        ({"conversations": [{"value": "x"}]}, "malformed entry", "turn 0: 'from' is missing"),
        ({"conversations": [{"from": "gpt", "value": 5}]}, "malformed entry", "'value' is a number (5)"),
        ({"image": 5, "conversations": []}, "malformed entry", "'image' contains a number (5)"),
        ({"image": ["a", None], "conversations": []}, "malformed entry", "'image' contains null"),
        ({"image": "", "conversations": []}, "malformed entry", "'image' contains text"),
        ({"conversations": [{"from": "gpt", "value": "\ud83d"}]}, "malformed entry", "lone surrogate"),
        ({"\ud83d": 1}, "malformed entry", "keys found: \\ud83d"),
        ({"conversations": []}, "malformed conversation", "no human turn with an answer"),
    ],
)
def test_wrong_structure(raw, kind, words):
    entry = parse_entry(raw)
    assert entry.problem_kind == kind
    assert words in entry.problem
    entry.problem.encode("utf-8")


@pytest.mark.parametrize(
    ("turns", "images", "kind", "words"),
    [
        (["human:a"], 0, "malformed conversation", "no human turn with an answer"),
        (["gpt:a"], 0, "malformed conversation", "no human turn with an answer"),
        (["user:a", "gpt:b"], 0, "malformed conversation", "turn 0 is from 'user'"),
        (["human:a", "gpt:b", "system:c"], 0, "malformed conversation", "turn 2 is from 'system'"),
        (["human:a", "human:b", "gpt:c"], 0, "malformed conversation", "turns 0 and 1 are both from 'human'"),
        (
            ["gpt:z", "human:a", "gpt:b", "gpt:c"],
            0,
            "malformed conversation",
            "turns 2 and 3 are both from 'gpt'",
        ),
        (["human:a", "gpt:"], 0, "empty text", "turn 1 (from 'gpt') is empty"),
        (["gpt:z", "human:a", "gpt: \n"], 0, "empty text", "turn 2 (from 'gpt') is empty"),
        (["human:", "gpt:a"], 0, "empty text", "turn 0 (from 'human') is empty"),
        (["human:a", "gpt:b"], 1, "<image> count", "0 <image> markers in the conversation, but 1 images"),
        (
            ["human:<image>a", "gpt:b"],
            0,
            "<image> count",
            "1 <image> markers in the conversation, but 0 images",
        ),
        (["human:<image>", "gpt:<image>"], 1, "<image> count", "turn 1 (from 'gpt') has an <image> marker"),
        (["human:a", "gpt:b", "human:<image>c"], 1, "<image> count", "0 <image> markers"),
    ],
)
def test_wrong_conversations(turns, images, kind, words):
    conversation = [dict(zip(("from", "value"), turn.split(":"), strict=True)) for turn in turns]
    with pytest.raises(EntryError) as error:
        check_conversation(conversation, images)
    assert error.value.kind == kind
    assert words in str(error.value)


def test_ends_without_use_are_dropped():
    conversation = [
        {"from": "gpt", "value": "Hi."},
        {"from": "human", "value": "<image>"},
        {"from": "gpt", "value": "A goat."},
        {"from": "human", "value": "And?"},
    ]
    assert check_conversation(conversation, 1) == [("human", "<image>"), ("gpt", "A goat.")]


def test_errors_survive_the_way_back_from_a_worker():
    import pickle

    error = pickle.loads(pickle.dumps(EntryError("kind", "message")))
    assert (error.kind, str(error)) == ("kind", "message")


def test_the_quick_way_gives_what_the_whole_check_gives(monkeypatch):
    """Random conversations, sound and broken in every way that a turn can be, read with and without it."""
    rng = random.Random(0)
    texts = ["<image>\nWhat?", "A goat.", "two words", "", "  ", "Grüße", "\ud83d", "<image><image>", 5, None]
    weights = [20, 40, 40, 1, 1, 1, 1, 1, 1, 1]
    taken, entries = [], []
    quick = module._words_of_ordinary

    def counted(turns, images):
        taken.append(quick(turns, images) is not None)
        return quick(turns, images)

    monkeypatch.setattr(module, "_words_of_ordinary", counted)
    for _ in range(5000):
        turns = []
        for index in range(rng.choice((1, 2, 2, 2, 4, 4, 5))):
            who = ("human", "gpt")[index % 2] if rng.random() < 0.95 else rng.choice(("human", "gpt", "tool", 3))
            turn = {"from": who, "value": rng.choices(texts, weights)[0]}
            if rng.random() < 0.03:
                turn["score"] = 1
            if rng.random() < 0.03:
                del turn[rng.choice(("from", "value"))]
            turns.append(turn if rng.random() < 0.98 else "turn")
        raw = {"image": rng.choice((None, "a.png", ["a.png", "b.png"])), "conversations": turns}
        entries.append((raw, parse_entry(raw)))
    monkeypatch.setattr(module, "_words_of_ordinary", lambda turns, images: None)
    for raw, found in entries:
        assert found == parse_entry(raw), raw
    assert sum(taken) > 500 and sum(bool(found.problem) for _, found in entries) > 1000
