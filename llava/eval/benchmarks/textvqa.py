"""TextVQA, validation split: VQA accuracy against ten annotators' answers, normalised as by the M4C evaluator."""

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from llava.errors import InputError
from llava.eval.benchmark import Benchmark, Score, first_existing, picture_folder, read_jsonl
from llava.eval.vqa_words import normalise
from llava.files import read_json
from llava.inference.question import Picture, Question

PEOPLE = 10
ENOUGH = 3
"""Number of the other annotators that must agree for full marks."""

OCR = "Reference OCR token:"
ANNOTATION = "TextVQA_0.5.1_val.json"
PICTURES = ("train_images", "train_val_images/train_images", "images")


def load(folder: Path, question_file: Path) -> list[Question]:
    """Questions; ``gold`` holds the ten annotated answers.

    Raises:
        InputError: A file is missing or malformed, or a question is not annotated.
    """
    annotation_file = first_existing(folder, (ANNOTATION,), "annotation of TextVQA")
    annotation = read_json(annotation_file)
    if not isinstance(annotation, dict) or "data" not in annotation:
        raise InputError(f"{annotation_file}: expected TextVQA's annotation, an object with 'data'")
    answers = {(row["image_id"], row["question"].lower()): row["answers"] for row in annotation["data"]}
    images = picture_folder(folder, PICTURES)
    questions = []
    for row in read_jsonl(question_file, ("question_id", "image", "text")):
        name = (row["question_id"], wording(row["text"]))
        if name not in answers:
            raise InputError(f"{annotation_file} has no question {name[1]!r} about image {name[0]!r}")
        if len(answers[name]) != PEOPLE:
            raise InputError(
                f"{annotation_file}: question {name[1]!r} about image {name[0]!r} has "
                f"{len(answers[name])} answers; the accuracy is defined for {PEOPLE}"
            )
        questions.append(
            Question(row["question_id"], row["text"], Picture.file(images / row["image"]), gold=answers[name])
        )
    return questions


def wording(prompt: str) -> str:
    """The annotated question in a prompt with OCR tokens and instructions, in lower case."""
    if prompt.startswith("OCR tokens: "):
        found = re.search(r"Question: (.*?) Short answer:", prompt, re.DOTALL)
        return (found[1] if found else prompt).lower()
    lines = prompt.split("\n")
    return lines[1 if prompt.startswith(OCR) and len(lines) > 1 else 0].lower()


def accuracy(answer: str, people: Sequence[str]) -> float:
    """VQA accuracy, 0 to 1: ``min(1, agreeing annotators / 3)``, averaged over leaving out one annotator at a time."""
    said = normalise(answer)
    agrees = [normalise(other) == said for other in people]
    if not any(agrees):
        return 0.0
    return fmean(min(1.0, (sum(agrees) - own) / ENOUGH) for own in agrees)


def score(questions: Sequence[Question], texts: Sequence[str | None]) -> Score:
    """Mean accuracy; a missing answer scores 0."""
    values = [
        accuracy(text, question.gold) if text is not None else 0.0
        for question, text in zip(questions, texts, strict=True)
    ]
    mean = 100.0 * fmean(values) if values else 0.0
    return Score(mean, {"accuracy": mean, "count": len(values)})


BENCHMARK = Benchmark(
    name="textvqa",
    column="TextVQA",
    folders=("textvqa",),
    questions=("llava_textvqa_val_v051_ocr.jsonl",),
    load=load,
    score=score,
)
