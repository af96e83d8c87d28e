"""The format of one entry of a LLaVA annotation file; used by training and by the checker."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import ASSISTANT, HUMAN
from llava.errors import InputError


class EntryError(InputError):
    """An error in one entry.

    Attributes:
        kind: Category of the problem; the checker counts by it.
    """

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type["EntryError"], tuple[str, str]]:
        return type(self), (self.kind, str(self))


MALFORMED_ENTRY = "malformed entry"
MALFORMED_CONVERSATION = "malformed conversation"
EMPTY_TEXT = "empty text"
MARKER_COUNT = "<image> count"


@dataclass
class Entry:
    """An entry in the stored format.

    Attributes:
        id: The entry's id as text, "" if it has none.
        image: The image paths as written; an empty list for a text-only entry.
        conversations: ``{"from", "value"}`` turns.
        length: Number of words in all turns, at least 1; negative for a text-only entry (LLaVA's modality length).
        problem: Why the entry cannot be used; "" if it can.
        problem_kind: Category of the problem; "" if there is none.
    """

    id: str = ""
    image: list[str] = field(default_factory=list)
    conversations: list[dict[str, str]] = field(default_factory=list)
    length: int = -1
    problem: str = ""
    problem_kind: str = ""


def parse_entry(raw: Any) -> Entry:
    """Convert a decoded JSON value to the stored format; errors are recorded in ``problem``.

    ``image`` may be missing, null, a path or a list of paths; keys that training does not use are dropped.
    """
    if not isinstance(raw, dict):
        return Entry(
            problem=f"the entry is {_kind(raw)}, expected an object with 'conversations'",
            problem_kind=MALFORMED_ENTRY,
        )
    entry = Entry()
    words = None
    try:
        entry.id = "" if raw.get("id") is None else _text(str(raw["id"]), "'id'")
        entry.image = _images(raw.get("image"))
        words = _words_of_ordinary(raw.get("conversations"), len(entry.image))
        if words is not None:
            entry.conversations = raw["conversations"]
        else:
            entry.conversations = _turns(raw)
            check_conversation(entry.conversations, len(entry.image))
    except EntryError as error:
        entry.problem = str(error).encode("utf-8", "backslashreplace").decode()
        entry.problem_kind = error.kind
    if words is None:
        words = sum(len(turn["value"].split()) for turn in entry.conversations)
    entry.length = max(words, 1) * (1 if entry.image else -1)
    return entry


def _words_of_ordinary(turns: Any, num_images: int) -> int | None:
    """The number of words of a plainly valid conversation; None if it needs the full check.

    A fast path past ``_turns`` and ``check_conversation`` that halves the conversion time, since nearly all entries of
    a large file take it. It accepts nothing that those two functions would change or reject.
    """
    if type(turns) is not list or not turns or len(turns) % 2:
        return None
    words = markers = 0
    human = True
    for turn in turns:
        if type(turn) is not dict or len(turn) != 2 or turn.get("from") != (HUMAN if human else ASSISTANT):
            return None
        value = turn.get("value")
        if type(value) is not str or not value.isascii():
            return None
        number = len(value.split())
        if not number:
            return None
        words += number
        if DEFAULT_IMAGE_TOKEN in value:
            if not human:
                return None
            markers += value.count(DEFAULT_IMAGE_TOKEN)
        human = not human
    return words if markers == num_images else None


def check_conversation(conversations: Sequence[dict[str, Any]], num_images: int) -> list[tuple[str, str]]:
    """The turns of a conversation that are used in training.

    A leading gpt turn is dropped, as in LLaVA. A last human turn without an answer is dropped too, because it has no
    targets.

    Returns:
        ``(from, value)`` pairs, alternating between human and gpt.

    Raises:
        EntryError: There are no turns, a speaker is unknown, a speaker has two turns in a row, there is no assistant
            turn, a text is empty, an assistant turn has an ``<image>`` marker, or the number of ``<image>`` markers
            differs from the number of images.
    """
    turns = [(str(turn["from"]), str(turn["value"])) for turn in conversations]
    for index, (who, _) in enumerate(turns):
        if who not in (HUMAN, ASSISTANT):
            raise EntryError(
                MALFORMED_CONVERSATION, f"turn {index} is from {who!r}, expected {HUMAN!r} or {ASSISTANT!r}"
            )
    if turns and turns[0][0] == ASSISTANT:
        turns = turns[1:]
    if turns and turns[-1][0] == HUMAN:
        turns = turns[:-1]
    if not turns:
        raise EntryError(MALFORMED_CONVERSATION, "the conversation has no human turn with an answer (gpt) after it")
    dropped = int(conversations[0]["from"] == ASSISTANT)
    markers = 0
    for index, (who, text) in enumerate(turns):
        if who != (HUMAN, ASSISTANT)[index % 2]:
            raise EntryError(
                MALFORMED_CONVERSATION,
                f"turns {index + dropped - 1} and {index + dropped} are both from {who!r}",
            )
        if not text.strip():
            raise EntryError(EMPTY_TEXT, f"turn {index + dropped} (from {who!r}) is empty")
        if who == ASSISTANT and DEFAULT_IMAGE_TOKEN in text:
            raise EntryError(
                MARKER_COUNT,
                f"turn {index + dropped} (from {who!r}) has an {DEFAULT_IMAGE_TOKEN} marker; only "
                f"{HUMAN!r} turns may have one",
            )
        markers += text.count(DEFAULT_IMAGE_TOKEN)
    if markers != num_images:
        raise EntryError(
            MARKER_COUNT,
            f"{markers} {DEFAULT_IMAGE_TOKEN} markers in the conversation, but {num_images} images",
        )
    return turns


def _images(value: Any) -> list[str]:
    if value is None:
        return []
    paths = value if isinstance(value, list) else [value]
    for path in paths:
        if not isinstance(path, str) or not path:
            raise EntryError(MALFORMED_ENTRY, f"'image' contains {_kind(path)}, expected a path or a list of paths")
        _text(path, "'image'")
    return paths


def _turns(raw: dict[str, Any]) -> list[dict[str, str]]:
    if "conversations" not in raw:
        raise EntryError(
            MALFORMED_ENTRY, f"no 'conversations' (keys found: {', '.join(sorted(map(str, raw))) or 'none'})"
        )
    turns = raw["conversations"]
    if not isinstance(turns, list):
        raise EntryError(MALFORMED_ENTRY, f"'conversations' is {_kind(turns)}, expected a list of turns")
    clean = []
    for index, turn in enumerate(turns):
        if not isinstance(turn, dict):
            raise EntryError(
                MALFORMED_ENTRY, f"turn {index} is {_kind(turn)}, expected an object with 'from' and 'value'"
            )
        for key in ("from", "value"):
            if not isinstance(turn.get(key), str):
                found = _kind(turn[key]) if key in turn else "missing"
                raise EntryError(MALFORMED_ENTRY, f"turn {index}: {key!r} is {found}, expected text")
        clean.append({key: _text(turn[key], f"turn {index}: {key!r}") for key in ("from", "value")})
    return clean


def _text(text: str, name: str) -> str:
    """Reject a lone surrogate (``"\\ud83d"`` without its pair), which JSON allows but tokenizers reject."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise EntryError(
            MALFORMED_ENTRY, f"{name} contains a lone surrogate (half a character) at position {error.start}"
        ) from None
    return text


def _kind(value: Any) -> str:
    """Describe a JSON value for an error message: its type and first characters."""
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    text = json.dumps(value, ensure_ascii=False, default=str)
    return f"{names.get(type(value), 'a number')} ({text if len(text) <= 40 else text[:37] + '...'})"
