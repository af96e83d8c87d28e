"""LLaVA's question files, made from the published annotations.

LLaVA publishes them as ``eval.zip``. The rules here were derived from its files (as in the history of its repository,
commit 32cebc3) and give the same ids and texts:

- GQA: one question per line, with the suffix for short answers, in the annotation's order.
- ScienceQA: ``Context: HINT`` if there is a hint, the question, and the options as ``A. TEXT``, in the split's order;
  ``<image>`` precedes questions with an image.
- TextVQA: the question, capitalised, the image's Rosetta OCR tokens, and the suffix.
- POPE: adversarial, random and popular, with 0, 10 and 20 million added to the published ids, since each category
  counts from 1.
- MME: the release's questions without "Please answer yes or no." and with the suffix; the id is the image's path. They
  are ordered by subtask and file name (LLaVA's by a directory listing), with the two questions of an image in the
  release's order.

Apart from the order the files are the same, so their sizes must equal those of LLaVA's files to the byte; the report
compares them. Answers and scores do not depend on the order.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import InputError
from llava.eval.benchmark import SHORT_ANSWER, first_existing, read_jsonl
from llava.eval.benchmarks import gqa, mme, pope, sqa, textvqa
from llava.files import read_json

OCR_FILE = "TextVQA_Rosetta_OCR_v0.2_val.json"
POPE_OFFSETS = {"adversarial": 0, "random": 10_000_000, "popular": 20_000_000}
"""Added to the ids of POPE's categories, in the order of LLaVA's file."""

Row = dict[str, Any]


def gqa_questions(folder: Path) -> str:
    """GQA's question file from ``testdev_balanced_questions.json``.

    Raises:
        InputError: The annotation is missing or has another format; the other benchmarks raise it too.
    """
    path = first_existing(folder, gqa.ANNOTATIONS, "annotation of GQA")
    annotations = read_json(path)
    try:
        return _lines(
            _row(name, f"{row['imageId']}.jpg", row["question"], "default") for name, row in annotations.items()
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise _unknown_form(path, error) from None


def sqa_questions(folder: Path) -> str:
    """ScienceQA's question file from ``problems.json`` and ``pid_splits.json``."""
    path = folder / sqa.PROBLEMS
    problems, splits = read_json(path), read_json(folder / sqa.SPLITS)
    try:
        rows = [_sqa_row(str(name), problems[str(name)]) for name in splits["test"]]
    except (IndexError, KeyError, TypeError) as error:
        raise _unknown_form(path, error) from None
    return json.dumps(rows, indent=2)


def _sqa_row(name: str, problem: Row) -> Row:
    lines = [f"Context: {problem['hint']}"] if problem["hint"] else []
    lines += [problem["question"]]
    lines += [f"{letter}. {text}" for letter, text in zip(sqa.LETTERS, problem["choices"], strict=False)]
    image: Row = {}
    if problem["image"]:
        image = {"image": f"{name}/{problem['image']}"}
        lines = [DEFAULT_IMAGE_TOKEN, *lines]
    turns = [
        {"from": "human", "value": "\n".join(lines)},
        {"from": "gpt", "value": sqa.LETTERS[problem["answer"]]},
    ]
    return {"id": name, **image, "conversations": turns}


def textvqa_questions(folder: Path) -> str:
    """TextVQA's question file from the annotation and the Rosetta OCR tokens."""
    path = folder / textvqa.ANNOTATION
    annotation, ocr = read_json(path), read_json(folder / OCR_FILE)
    try:
        tokens = {row["image_id"]: row["ocr_tokens"] for row in ocr["data"]}
        return _lines(
            _row(
                row["image_id"],
                f"{row['image_id']}.jpg",
                f"{row['question'].capitalize()}\n{textvqa.OCR} {', '.join(tokens[row['image_id']])}",
                "default",
            )
            for row in annotation["data"]
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise _unknown_form(path, error) from None


def pope_questions(folder: Path) -> str:
    """POPE's question file from its three lists."""
    labels = first_existing(folder, pope.LABELS, "label folder of POPE")
    rows = []
    for category, offset in POPE_OFFSETS.items():
        path = labels / f"{pope.PREFIX}{category}.json"
        for row in read_jsonl(path, ("question_id", "image", "text")):
            rows.append(_row(offset + row["question_id"], row["image"], row["text"], category))
    return _lines(rows)


def mme_questions(folder: Path) -> str:
    """MME's question file from the release's text files."""
    release = first_existing(folder, mme.PLACES, "release folder of MME")
    rows = []
    for subtask in mme.PERCEPTION + mme.COGNITION:
        texts = first_existing(release / subtask, ("questions_answers_YN", "."), f"MME's subtask {subtask!r}")
        pictures = first_existing(release / subtask, ("images", "."), f"MME's subtask {subtask!r}")
        known = {path.stem: path.name for path in sorted(pictures.iterdir()) if path.suffix in (".jpg", ".png")}
        for path in sorted(texts.glob("*.txt")):
            if path.stem not in known:
                raise InputError(f"{pictures} has no image for {path}; unpack the release again")
            name = (pictures / known[path.stem]).relative_to(release).as_posix()
            for line in path.read_text(encoding="utf-8").splitlines():
                question = line.split("\t")[0].replace(mme.YES_NO, "").strip()
                rows += [_row(name, name, question, subtask)] if question else []
    return _lines(rows)


def _row(name: str | int, image: str, question: str, category: str) -> Row:
    return {"question_id": name, "image": image, "text": f"{question}\n{SHORT_ANSWER}", "category": category}


def _lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _unknown_form(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} does not have the published format ({type(error).__name__}: {error}); remove it and download it again"
    )
