"""ScienceQA, test split: multiple choice; accuracy over all questions and over those with an image.

Answers are read as in LLaVA's evaluation script; the groups of questions are ScienceQA's own. The paper's authors
prompt this benchmark with template ``v1``, whose prompt for a single turn is the same text as that of ``qwen``.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import InputError
from llava.eval.benchmark import (
    LETTER_ANSWER,
    Benchmark,
    Score,
    accuracies,
    first_existing,
    percent,
    picture_folder,
)
from llava.files import read_json
from llava.inference.question import Picture, Question

LETTERS = "ABCDE"
PROBLEMS, SPLITS = "problems.json", "pid_splits.json"
PICTURES = ("images/test", "images")
SUBJECTS = {"natural science": "NAT", "social science": "SOC", "language science": "LAN"}
_THE_ANSWER_IS = re.compile(r"The answer is ([A-Z]).")
_DECORATED = re.compile(r"\(?([A-E])[).:]?(?:\s|$)")


def load(folder: Path, question_file: Path) -> list[Question]:
    """Questions; ``gold`` is the index of the correct choice, ``info`` the problem's annotation.

    Raises:
        InputError: A file is missing or malformed, or a question is not in the annotation.
    """
    problems_file = first_existing(folder, (PROBLEMS,), "annotation of ScienceQA")
    problems = read_json(problems_file)
    test = read_json(first_existing(folder, (SPLITS,), "list of splits of ScienceQA")).get("test", [])
    rows = read_json(question_file)
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{question_file}: expected a list of questions")
    images = picture_folder(folder, PICTURES)
    questions = []
    for position, row in enumerate(rows):
        try:
            name, text = str(row["id"]), row["conversations"][0]["value"]
        except (KeyError, IndexError, TypeError):
            raise InputError(
                f"{question_file}, entry {position}: expected 'id' and 'conversations'; is this LLaVA's "
                "question file for ScienceQA?"
            ) from None
        if name not in problems:
            raise InputError(f"question {name} of {question_file} is not in {problems_file}")
        words = text.replace(DEFAULT_IMAGE_TOKEN, "").strip()
        picture = Picture.file(images / row["image"]) if row.get("image") else None
        problem = problems[name]
        questions.append(Question(name, f"{words}\n{LETTER_ANSWER}", picture, gold=problem["answer"], info=problem))
    asked = {question.question_id for question in questions}
    absent = [name for name in test if str(name) not in asked]
    if absent:
        raise InputError(
            f"{question_file} lacks {len(absent)} of the {len(test)} questions of the test split "
            f"(first: {absent[0]}); is it cut short?"
        )
    return questions


def letter(text: str) -> str | None:
    """The option's letter as LLaVA's script reads it, or None.

    Accepted are the letter alone, a text that begins with a letter, a full stop and a space, and exactly one "The
    answer is X" followed by any character. A letter followed only by a full stop is not accepted.
    """
    if len(text) == 1 and text in LETTERS:
        return text
    if len(text) >= 3 and text[0] in LETTERS and text[1:3] == ". ":
        return text[0]
    found = _THE_ANSWER_IS.findall(text)
    return found[0] if len(found) == 1 else None


def lenient_letter(text: str) -> str | None:
    """Like :func:`letter`, but also accepts "A.", "(A)", "A)" and "A: ...", alone or after "The answer is"."""
    match = _DECORATED.match(text.strip().removeprefix("The answer is "))
    return letter(text) or (match[1] if match else None)


def score(questions: Sequence[Question], texts: Sequence[str | None]) -> Score:
    """Accuracy over the questions with an image; missing and unreadable answers are wrong.

    The metrics have the accuracy over all questions and over those with an image, each with answers read strictly (as
    published) and leniently, and ScienceQA's groups: subject (NAT, SOC, LAN), context (TXT: has a hint, IMG: has an
    image, NO: neither) and grade (G1-6, G7-12).
    """
    hits: dict[str, list[bool]] = defaultdict(list)
    groups: dict[str, list[bool]] = defaultdict(list)
    unread = 0
    for question, text in zip(questions, texts, strict=True):
        choices, has_picture = question.info["choices"], question.picture is not None
        index = _choice(letter(text or ""), len(choices))
        unread += text is not None and index is None
        hit = index == question.gold
        lenient = _choice(lenient_letter(text or ""), len(choices)) == question.gold
        for name in ("", "image_") if has_picture else ("",):
            hits[f"{name}accuracy"].append(hit)
            hits[f"{name}accuracy_lenient"].append(lenient)
        for name in _groups(question.info, has_picture):
            groups[name].append(hit)
    metrics: dict[str, Any] = {name: percent(sum(values), len(values)) for name, values in sorted(hits.items())}
    metrics["count"] = len(hits["accuracy"])
    metrics["image_count"] = len(hits["image_accuracy"])
    metrics["unreadable"] = unread
    metrics["by_group"] = accuracies(groups)
    return Score(metrics.get("image_accuracy", metrics.get("accuracy", 0.0)), metrics)


def _choice(option: str | None, choices: int) -> int | None:
    """Index of an option's letter, or None if the question has fewer choices."""
    index = LETTERS.find(option) if option else -1
    return index if 0 <= index < choices else None


def _groups(problem: dict[str, Any], has_picture: bool) -> list[str]:
    names = [SUBJECTS[problem["subject"]]] if problem.get("subject") in SUBJECTS else []
    has_text = bool(problem.get("hint"))
    names += ["TXT"] * has_text + ["IMG"] * has_picture + ["NO"] * (not has_text and not has_picture)
    grade = re.fullmatch(r"grade(\d+)", str(problem.get("grade", "")))
    return names + (["G1-6" if int(grade[1]) <= 6 else "G7-12"] if grade else [])


BENCHMARK = Benchmark(
    name="sqa",
    column="SQA",
    folders=("scienceqa", "sqa"),
    questions=("llava_test_CQM-A.json",),
    load=load,
    score=score,
)
