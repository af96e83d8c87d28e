"""POPE: is there such an object in the image? Accuracy, precision, recall and F1 for each kind of negatives.

Answers are read as in POPE's evaluation script, in LLaVA's version.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from llava.errors import InputError
from llava.eval.benchmark import (
    Benchmark,
    MissingFile,
    Row,
    Score,
    first_existing,
    percent,
    picture_folder,
    read_jsonl,
)
from llava.inference.question import Picture, Question

PREFIX = "coco_pope_"
LABELS = ("coco", ".")
PICTURES = ("val2014", "images")


def load(folder: Path, question_file: Path) -> list[Question]:
    """Questions with ``gold`` "yes" or "no"; labels are read from ``coco/coco_pope_{category}.json``.

    Raises:
        InputError: A file is missing or malformed, or labels and questions do not match.
    """
    labels_folder = first_existing(folder, LABELS, "label folder of POPE")
    images = picture_folder(folder, PICTURES)
    rows = read_jsonl(question_file, ("question_id", "image", "text", "category"))
    by_category: dict[str, list[int]] = defaultdict(list)
    for position, row in enumerate(rows):
        by_category[row["category"]].append(position)
    golds: dict[int, str] = {}
    for category, positions in by_category.items():
        label_file = labels_folder / f"{PREFIX}{category}.json"
        if not label_file.is_file():
            raise MissingFile(f"labels of POPE's category {category!r} not found: expected {label_file}")
        labels = read_jsonl(label_file, ("label",))
        golds.update(zip(positions, _align([rows[p] for p in positions], labels, label_file), strict=True))
    return [
        Question(
            row["question_id"],
            row["text"],
            Picture.file(images / row["image"]),
            gold=golds[position],
            category=row["category"],
        )
        for position, row in enumerate(rows)
    ]


def _align(questions: list[Row], labels: list[Row], label_file: Path) -> list[str]:
    """Labels in the questions' order: line by line if the images agree, else matched by image and wording."""
    if len(labels) == len(questions) and all(
        label.get("image", question["image"]) == question["image"]
        for label, question in zip(labels, questions, strict=True)
    ):
        return [label["label"] for label in labels]
    known = {(label.get("image"), str(label.get("text", "")).strip()): label["label"] for label in labels}
    aligned = []
    for question in questions:
        name = (question["image"], question["text"].split("\n")[0].strip())
        if name not in known:
            raise InputError(
                f"{label_file} has no label for question {question['question_id']} "
                f"({name[1]!r} about {name[0]}); do question file and labels belong together?"
            )
        aligned.append(known[name])
    return aligned


def says_no(text: str) -> bool:
    """Whether an answer counts as "no": its first sentence has the word No, no or not. All others count as "yes"."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return any(word in words for word in ("No", "no", "not"))


@dataclass
class Confusion:
    """Counts with "yes" as the positive class."""

    tp: int = 0
    fp: int = 0
    tn: int = 0
    fn: int = 0

    def add(self, said_yes: bool, is_yes: bool) -> None:
        """Count one answer."""
        name = ("t" if said_yes == is_yes else "f") + ("p" if said_yes else "n")
        setattr(self, name, getattr(self, name) + 1)

    def metrics(self) -> dict[str, float]:
        """All metrics in percent; 0 where the published script would divide by zero."""
        total = self.tp + self.fp + self.tn + self.fn
        precision = percent(self.tp, self.tp + self.fp)
        recall = percent(self.tp, self.tp + self.fn)
        return {
            "accuracy": percent(self.tp + self.tn, total),
            "precision": precision,
            "recall": recall,
            "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
            "yes_ratio": percent(self.tp + self.fp, total),
            "count": total,
        }


def score(questions: Sequence[Question], texts: Sequence[str | None]) -> Score:
    """Mean F1 over the categories, with all metrics of each; a missing answer is wrong."""
    confusions: dict[str, Confusion] = defaultdict(Confusion)
    for question, text in zip(questions, texts, strict=True):
        is_yes = question.gold != "no"
        said_yes = not is_yes if text is None else not says_no(text)
        confusions[question.category].add(said_yes, is_yes)
    categories = {name: confusion.metrics() for name, confusion in sorted(confusions.items())}
    means = {
        f"mean_{name}": fmean(values[name] for values in categories.values()) if categories else 0.0
        for name in ("f1", "accuracy", "yes_ratio")
    }
    return Score(means["mean_f1"], {**means, "by_category": categories})


BENCHMARK = Benchmark(
    name="pope",
    column="POPE",
    folders=("pope",),
    questions=("llava_pope_test.jsonl",),
    load=load,
    score=score,
)
