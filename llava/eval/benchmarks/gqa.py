"""GQA, test-dev balanced: exact match, also by question type.

Follows GQA's evaluation script after LLaVA's conversion of answers (lower case, trailing full stops removed).
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.eval.benchmark import (
    Benchmark,
    Score,
    accuracies,
    first_existing,
    percent,
    picture_folder,
    read_jsonl,
)
from llava.files import read_json
from llava.inference.question import Picture, Question

ANNOTATIONS = (
    "data/testdev_balanced_questions.json",
    "data/questions/testdev_balanced_questions.json",
    "testdev_balanced_questions.json",
)
PICTURES = ("data/images", "images")


def load(folder: Path, question_file: Path) -> list[Question]:
    """Questions with their annotation as ``gold``.

    Raises:
        InputError: A file is missing or malformed, or a question is not annotated.
    """
    annotation_file = first_existing(folder, ANNOTATIONS, "annotation of GQA")
    annotations = read_json(annotation_file)
    images = picture_folder(folder, PICTURES)
    questions = []
    for row in read_jsonl(question_file, ("question_id", "image", "text")):
        name = str(row["question_id"])
        if name not in annotations:
            raise InputError(
                f"question {name} of {question_file} is not in {annotation_file}; do they belong together?"
            )
        questions.append(Question(name, row["text"], Picture.file(images / row["image"]), gold=annotations[name]))
    return questions


def prediction(text: str) -> str:
    """The part of an answer that is compared with the annotated answer."""
    return text.rstrip(".").lower()


def steps(question: dict[str, Any]) -> int:
    """Number of reasoning steps, not counting those that end every program (``exist`` and queries for a name)."""
    last = ("exist", "query: name", "choose name")
    described = [f"{step['operation']}: {step['argument']}" for step in question.get("semantic", [])]
    return sum(not any(name in step for name in last) for step in described)


def score(questions: Sequence[Question], texts: Sequence[str | None]) -> Score:
    """Percentage of exact matches over balanced questions; a missing answer is wrong.

    Breakdowns: binary and open, structural and semantic type, number of words, number of reasoning steps.
    """
    hits: list[bool] = []
    parts: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for question, text in zip(questions, texts, strict=True):
        gold = question.gold
        if not gold.get("isBalanced", True):
            continue
        hit = text is not None and prediction(text) == gold["answer"]
        hits.append(hit)
        types = gold.get("types", {})
        if "structural" in types:
            parts["answer"]["open" if types["structural"] == "query" else "binary"].append(hit)
        for name in ("structural", "semantic"):
            if types.get(name) is not None:
                parts[name][types[name]].append(hit)
        if "question" in gold:
            parts["words"][f"{len(gold['question'].split()):02d}"].append(hit)
        if "semantic" in gold:
            parts["steps"][f"{steps(gold):02d}"].append(hit)
    accuracy = percent(sum(hits), len(hits))
    breakdown = {f"by_{name}": accuracies(values) for name, values in parts.items()}
    return Score(accuracy, {"accuracy": accuracy, "correct": sum(hits), "count": len(hits), **breakdown})


BENCHMARK = Benchmark(
    name="gqa",
    column="GQA",
    folders=("gqa",),
    questions=("llava_gqa_testdev_balanced.jsonl",),
    load=load,
    score=score,
)
