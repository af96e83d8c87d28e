"""Answers on disk: one file per process, safe to kill at any time, never mixing two models or settings.

A benchmark's folder holds ``settings.json`` (what the answers depend on), ``parts/{i}_of_{n}.jsonl`` (one file per
process, to which a line is appended for each answer) and ``answers.jsonl`` (all answers in the question file's order).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from llava.errors import InputError
from llava.eval.records import Answer, read_answers
from llava.files import write_json, write_text
from llava.inference.question import Question

SETTINGS_FILE = "settings.json"
ANSWERS_FILE = "answers.jsonl"
REMEDY = "pass --overwrite to discard these answers, or write the new ones to another place"


def settings_id(settings: dict[str, Any]) -> str:
    """Twelve hexadecimal digits that identify the settings in every answer's metadata."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def part_path(folder: Path, chunk_idx: int, num_chunks: int) -> Path:
    """The answers file of one process."""
    return folder / "parts" / f"{chunk_idx}_of_{num_chunks}.jsonl"


class AnswerWriter:
    """Appends the answers of one process, and knows which questions are answered already.

    Args:
        folder: The benchmark's folder.
        settings: What the answers depend on; JSON values.
        model_id: The model's name, written into every answer.
        chunk_idx, num_chunks: Index of this process and number of processes.
        overwrite: Discard what this process wrote before, and ignore answers of other processes with other settings.

    Raises:
        InputError: There are answers with other settings.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        model_id: str,
        chunk_idx: int = 0,
        num_chunks: int = 1,
        overwrite: bool = False,
    ) -> None:
        self.path = part_path(folder, chunk_idx, num_chunks)
        self.model_id = model_id
        self.settings = settings_id(settings)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if overwrite:
            self.path.unlink(missing_ok=True)
        drop_partial_line(self.path)
        parts = _parts_of(folder, num_chunks if overwrite else None)
        answers = _compatible_answers(folder, parts, settings, ignore_others=overwrite)
        self.done = {answer.metadata.get("key", "") for answer in answers}
        write_json(folder / SETTINGS_FILE, settings)
        self._file: IO[str] | None = None

    def __enter__(self) -> "AnswerWriter":
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, question: Question, text: str, finish: str) -> None:
        """Append one answer and flush it to the file."""
        import shortuuid

        assert self._file is not None, "use the writer in a with statement"
        metadata = {"key": question.key, "settings": self.settings, "finish": finish}
        answer = Answer(question.question_id, question.text, text, shortuuid.uuid(), self.model_id, metadata)
        self._file.write(answer.to_line())
        self._file.flush()


def merge_parts(
    folder: Path,
    questions: Sequence[Question],
    settings: dict[str, Any],
    overwrite: bool = False,
    num_chunks: int | None = None,
    target: Path | None = None,
) -> list[Answer]:
    """Join the answers of all processes into one file, in the questions' order.

    Args:
        folder: The benchmark's folder.
        questions: All questions of the benchmark.
        settings: The settings that the writers were given.
        overwrite: Ignore answers with other settings, and delete files of another number of processes.
        num_chunks: Number of processes, needed with ``overwrite``.
        target: Output file; ``answers.jsonl`` in the folder by default.

    Returns:
        All answers, in the questions' order.

    Raises:
        InputError: There are no answers, or some have other settings.
    """
    keep = _parts_of(folder, num_chunks if overwrite else None)
    if overwrite:
        for path in set(_parts_of(folder)) - set(keep):
            path.unlink()
    answers = _compatible_answers(folder, keep, settings, ignore_others=overwrite)
    if not answers:
        raise InputError(f"no answers in {folder / 'parts'}: generate them first (--stage generate or all)")
    order = {question.key: index for index, question in enumerate(questions)}
    answers.sort(key=lambda answer: order.get(answer.metadata.get("key", ""), len(order)))
    write_text(target or folder / ANSWERS_FILE, "".join(answer.to_line() for answer in answers))
    return answers


def _parts_of(folder: Path, num_chunks: int | None = None) -> list[Path]:
    pattern = f"*_of_{num_chunks}.jsonl" if num_chunks else "*_of_*.jsonl"
    return sorted((folder / "parts").glob(pattern))


def _compatible_answers(
    folder: Path, parts: Iterable[Path], settings: dict[str, Any], ignore_others: bool
) -> list[Answer]:
    wanted, answers = settings_id(settings), []
    for path in parts:
        for answer in read_answers(path):
            found = answer.metadata.get("settings")
            if found == wanted:
                answers.append(answer)
            elif not ignore_others:
                raise InputError(
                    f"{path} contains answers of model {answer.model_id!r} with other settings "
                    f"({_difference(folder, settings)}); {REMEDY}"
                )
    return answers


def _difference(folder: Path, settings: dict[str, Any]) -> str:
    try:
        before = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"there is no readable {SETTINGS_FILE} next to them"
    changed = [
        f"{name}: {before.get(name)!r} there, {settings.get(name)!r} now"
        for name in sorted(before.keys() | settings.keys())
        if before.get(name) != settings.get(name)
    ]
    return "; ".join(changed) or "they were written before the current ones"


def drop_partial_line(path: Path) -> None:
    """Remove an incomplete last line, as a killed process leaves it."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
