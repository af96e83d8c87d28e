"""Your own question file in LLaVA's format: JSON lines with ``question_id``, ``text`` and optionally ``image``."""

import json
from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.eval.records import with_keys
from llava.inference.question import Picture, Question

SHOWN = 5
"""Number of missing images that an error names."""


def read_questions(path: Path, image_folder: Path | None = None) -> list[Question]:
    """The questions of a file, in its order.

    Args:
        path: The question file.
        image_folder: Folder that image paths are relative to; the question file's folder by default.

    Raises:
        InputError: The file does not exist, a line is malformed, an id is used twice, or an image does not exist; the
            message names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise InputError(f"question file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {error}") from None
    questions: list[Question] = []
    seen: dict[str, int] = {}
    missing: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        question = _question(line, f"{path}, line {number}", image_folder or path.parent)
        name = str(question.question_id)
        if name in seen:
            raise InputError(
                f"{path}, line {number}: question_id {name!r} is also used in line {seen[name]}; "
                "give every question its own"
            )
        seen[name] = number
        if question.picture is not None and not question.picture.exists():
            missing.append(f"line {number}: {question.picture.name}")
        questions.append(question)
    if not questions:
        raise InputError(f"{path} has no questions; expected JSON lines with question_id, text and optionally image")
    if missing:
        more = f" and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else ""
        raise InputError(
            f"{path}: {len(missing):,} of {len(questions):,} questions name an image that does not exist "
            f"({'; '.join(missing[:SHOWN])}{more}); paths are relative to --image-folder"
        )
    return with_keys(questions)


def _question(line: str, where: str, folder: Path) -> Question:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON ({error}); expected one object per line") from None
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected an object with question_id and text, found {line[:80]!r}")
    lacking = [name for name in ("question_id", "text") if name not in row]
    if lacking:
        raise InputError(f"{where}: the question has no {lacking[0]!r}; it has {', '.join(row) or 'nothing'}")
    name, text, image = row["question_id"], row["text"], row.get("image")
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise InputError(f"{where}: question_id is {name!r}, expected text or a whole number")
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{where}: text is {text!r}, expected a question")
    if image is not None and not isinstance(image, str):
        raise InputError(f"{where}: image is {image!r}, expected the path of one image")
    return Question(name, text, Picture.file(folder / image) if image else None)
