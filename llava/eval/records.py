"""Answers to a benchmark, and matching them with its questions."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.inference.question import Question

VERY_LONG = 500
"""Answers with more characters than this are reported, since the prompts ask for short ones."""

EXAMPLES = 5
"""Number of question keys that are named for each kind of malformed answer."""


@dataclass(frozen=True)
class Answer:
    """One line of an answers file, with LLaVA's keys.

    ``metadata`` holds ``key`` (the question's key), ``settings`` (an id of the settings) and ``finish`` (``stop``, or
    ``length`` if the answer reached the token limit). Answers of other programs may leave it empty.
    """

    question_id: str | int
    prompt: str
    text: str
    answer_id: str = ""
    model_id: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)

    def to_line(self) -> str:
        """One JSON object, newline included."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


@dataclass
class Matched:
    """Answers brought into the order of the questions.

    Attributes:
        texts: The answer to each question, None where there is none.
        report: Counts of missing, empty and otherwise unusual answers.
    """

    texts: list[str | None]
    report: dict[str, Any]


def with_keys(questions: Iterable[Question]) -> list[Question]:
    """Give every question a unique key: its id, and ``#2``, ``#3``... where the id has occurred before."""
    seen: dict[str, int] = {}
    keyed = []
    for question in questions:
        name = str(question.question_id)
        seen[name] = seen.get(name, 0) + 1
        keyed.append(replace(question, key=name if seen[name] == 1 else f"{name}#{seen[name]}"))
    return keyed


def subset(questions: Sequence[Question], limit: int | None) -> list[Question]:
    """About ``limit`` questions spread evenly over the file, groups kept whole, in the file's order.

    Raises:
        InputError: ``limit`` is below 1.
    """
    if limit is None or limit >= len(questions):
        return list(questions)
    if limit < 1:
        raise InputError(f"--limit is {limit}; it must be at least 1")
    groups: dict[str, list[int]] = {}
    for position, question in enumerate(questions):
        groups.setdefault(question.group or f"key:{question.key}", []).append(position)
    members = list(groups.values())
    wanted = max(1, round(limit * len(members) / len(questions)))
    chosen = [members[index * len(members) // wanted] for index in range(wanted)]
    return [questions[position] for position in sorted(sum(chosen, []))]


def chunk(questions: Sequence[Question], num_chunks: int, chunk_idx: int) -> list[Question]:
    """Part ``chunk_idx`` of ``num_chunks`` contiguous parts whose sizes differ by at most one.

    Raises:
        InputError: There is no such part.
    """
    if num_chunks < 1 or not 0 <= chunk_idx < num_chunks:
        raise InputError(
            f"--chunk-idx is {chunk_idx} of --num-chunks {num_chunks}; it must be at least 0 and less than --num-chunks"
        )
    count = len(questions)
    return list(questions[count * chunk_idx // num_chunks : count * (chunk_idx + 1) // num_chunks])


def match_answers(questions: Sequence[Question], answers: Sequence[Answer]) -> Matched:
    """Bring answers into the questions' order and count malformed ones.

    An answer is matched by the key in its metadata, else by id and prompt, else by id alone if only one question has
    that id. If a question has several answers the last one counts, as in the published tools, which read answers into
    a dictionary.
    """
    by_key = {question.key: index for index, question in enumerate(questions)}
    by_prompt: dict[tuple[str, str], int] = {}
    by_id: dict[str, list[int]] = {}
    for position, question in enumerate(questions):
        by_prompt.setdefault((str(question.question_id), _words(question.text)), position)
        by_id.setdefault(str(question.question_id), []).append(position)

    def place(answer: Answer) -> int | None:
        if answer.metadata.get("key") in by_key:
            return by_key[answer.metadata["key"]]
        name = str(answer.question_id)
        if (name, _words(answer.prompt)) in by_prompt:
            return by_prompt[name, _words(answer.prompt)]
        return by_id[name][0] if len(by_id.get(name, [])) == 1 else None

    texts: list[str | None] = [None] * len(questions)
    last: dict[int, Answer] = {}
    unknown: list[str] = []
    repeated: list[str] = []
    for answer in answers:
        if (index := place(answer)) is None:
            unknown.append(str(answer.metadata.get("key", answer.question_id)))
            continue
        if index in last:
            repeated.append(questions[index].key)
        last[index] = answer
        texts[index] = answer.text
    report = _report(questions, texts, last)
    for name, keys in (("duplicate", repeated), ("unknown_id", unknown)):
        report[name] = len(keys)
        if keys:
            report["examples"][name] = keys[:EXAMPLES]
    return Matched(texts, report)


def _report(questions: Sequence[Question], texts: Sequence[str | None], last: dict[int, Answer]) -> dict[str, Any]:
    kinds: dict[str, list[str]] = {
        name: [] for name in ("missing", "empty", "non_ascii", "very_long", "at_token_limit")
    }
    for index, (question, text) in enumerate(zip(questions, texts, strict=True)):
        if text is None:
            kinds["missing"].append(question.key)
            continue
        if not text.strip():
            kinds["empty"].append(question.key)
        if not text.isascii():
            kinds["non_ascii"].append(question.key)
        if len(text) > VERY_LONG:
            kinds["very_long"].append(question.key)
        if last[index].metadata.get("finish") == "length":
            kinds["at_token_limit"].append(question.key)
    return {
        "questions": len(questions),
        "answered": len(last),
        **{name: len(keys) for name, keys in kinds.items()},
        "examples": {name: keys[:EXAMPLES] for name, keys in kinds.items() if keys},
    }


def _words(text: str) -> str:
    """A prompt without image markers and with single spaces, since programs record prompts differently."""
    return " ".join(text.replace("<image>", " ").split())


def parse_answer(line: str, where: str) -> Answer:
    """An answer from a line of an answers file.

    Raises:
        InputError: The line is not a JSON object with ``question_id`` and ``text``; the message begins with ``where``.
    """
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON ({error})") from None
    if not isinstance(row, dict) or "question_id" not in row or "text" not in row:
        raise InputError(f"{where}: expected a JSON object with 'question_id' and 'text', found {line[:80]!r}")
    text = row["text"]
    return Answer(
        question_id=row["question_id"],
        prompt=str(row.get("prompt", "")),
        text="" if text is None else str(text),
        answer_id=str(row.get("answer_id", "")),
        model_id=str(row.get("model_id", "")),
        metadata=row.get("metadata") or {},
    )


def read_answers(path: Path) -> list[Answer]:
    """All answers of a file, except an incomplete last line of a killed process.

    Raises:
        InputError: The file is missing, or a line before the last is malformed.
    """
    if not path.is_file():
        raise InputError(f"answers file {path} does not exist")
    lines = path.read_bytes().split(b"\n")
    complete = [line.decode("utf-8", errors="replace") for line in lines[:-1]]
    if lines[-1].strip():
        try:
            json.loads(lines[-1])
        except ValueError:
            pass
        else:
            complete.append(lines[-1].decode("utf-8"))
    return [parse_answer(line, f"{path}, line {n}") for n, line in enumerate(complete, 1) if line.strip()]
