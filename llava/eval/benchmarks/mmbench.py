"""MMBench (English, dev): multiple choice, each question asked again with its options rotated.

The rotations of a question are rows of the table with the same index modulo a million. The circular accuracy, which
MMBench's server reports, counts a question only if all its rotations are answered correctly. The server uses a language
model to read free-form answers; here they are read by rules, which makes no difference for single-letter answers.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.eval.benchmark import LETTER_ANSWER, Benchmark, Score, accuracies, percent
from llava.eval.mmbench_workbook import write_workbook
from llava.inference.question import Picture, Question

LETTERS = "ABCD"
ROTATION = 1_000_000
_MARKS = ".()[],:;!*#{}"


def load(folder: Path, question_file: Path) -> list[Question]:
    """Questions; ``gold`` is the correct letter (None in a table without answers), ``info`` holds the other columns.

    Raises:
        InputError: The file is not a table with MMBench's columns, or a row has no image.
    """
    rows = read_table(question_file)
    pictures = {str(row["index"]): row["image"] for row in rows}
    questions = []
    for row in rows:
        options = choices(row)
        data = row["image"]
        if data in pictures and data != pictures[data]:  # a rotation may name the row that holds the image
            data = pictures[data]
        if not data:
            raise InputError(f"{question_file}: row with index {row['index']} has no image")
        gold = row.get("answer") or None
        if gold is not None and gold not in set(LETTERS):
            raise InputError(
                f"{question_file}: row with index {row['index']} has answer {gold!r}, expected one of {LETTERS}"
            )
        hint = [row["hint"]] if row.get("hint") else []
        lines = [
            *hint,
            row["question"],
            *(f"{name}. {text}" for name, text in options.items()),
            LETTER_ANSWER,
        ]
        questions.append(
            Question(
                int(row["index"]),
                "\n".join(lines),
                Picture(name=f"of index {row['index']} in {question_file}", data=data),
                gold=gold,
                category=row.get("category") or "",
                group=str(int(row["index"]) % ROTATION),
                info={key: value for key, value in row.items() if key != "image"},
            )
        )
    return questions


def read_table(path: Path) -> list[dict[str, Any]]:
    """Rows of a tab-separated table as text; empty cells and what pandas reads as missing values become "".

    Raises:
        InputError: The file is not a table, or lacks one of MMBench's columns.
    """
    import pandas

    try:
        frame = pandas.read_csv(path, sep="\t", dtype=str).fillna("")
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not a tab-separated table: {error}") from error
    missing = [name for name in ("index", "question", "A", "B", "image") if name not in frame.columns]
    if missing:
        raise InputError(f"{path}: expected MMBench's columns, missing {', '.join(missing)}")
    wrong = frame["index"][~frame["index"].str.fullmatch(r"\d+")]
    if len(wrong):
        raise InputError(f"{path}: index {wrong.iloc[0]!r} is not a whole number; is the table damaged?")
    return frame.to_dict("records")


def choices(row: dict[str, Any]) -> dict[str, str]:
    """Options by letter, up to the first one that is empty, "nan" or "none"."""
    options: dict[str, str] = {}
    for name in LETTERS:
        if str(row.get(name) or "").lower() in ("", "nan", "none"):
            break
        options[name] = row[name]
    return options


def letter(text: str, options: dict[str, str]) -> str | None:
    """The option that an answer names, by letter or else by text; None if it names none or several.

    A bare "A" in an answer of more than three words is taken as the article, not as an option; "A." is an option.
    """
    words = text.split()
    bare = {word for word in words if word in options}
    if len(bare) == 1 and not (bare == {"A"} and len(words) > 3):
        return bare.pop()
    marked = {word.strip(_MARKS) for word in words if word.strip(_MARKS) != word}
    named = marked & set(options)
    if len(named) == 1:
        return named.pop()
    quoted = [name for name, option in options.items() if option.lower() in text.lower()]
    return quoted[0] if len(quoted) == 1 else None


def score(questions: Sequence[Question], texts: Sequence[str | None]) -> Score:
    """Circular accuracy; the metrics also have the accuracy over unrotated questions and over all rows.

    If the table has no answers (a test split) nothing can be scored: the value is 0, with a note.
    """
    if all(question.gold is None for question in questions):
        return Score(0.0, {"note": "the table has no answers: submit the workbook to MMBench's server"})
    hits: dict[str, list[bool]] = defaultdict(list)
    categories: dict[str, dict[str, str]] = {"category": {}, "l2-category": {}}
    plain, unread = [], 0
    for question, text in zip(questions, texts, strict=True):
        said = letter(text, choices(question.info)) if text is not None else None
        unread += text is not None and said is None
        hit = said == question.gold
        hits[question.group].append(hit)
        if int(question.question_id) < ROTATION:
            plain.append(hit)
        for name, known in categories.items():
            known.setdefault(question.group, question.info.get(name) or "")
    circular = [all(rotations) for rotations in hits.values()]
    rows = [hit for rotations in hits.values() for hit in rotations]
    metrics: dict[str, Any] = {
        "circular_accuracy": percent(sum(circular), len(circular)),
        "plain_accuracy": percent(sum(plain), len(plain)),
        "row_accuracy": percent(sum(rows), len(rows)),
        "count": len(circular),
        "rows": len(rows),
        "unreadable": unread,
    }
    for name, known in categories.items():
        parts: dict[str, list[bool]] = defaultdict(list)
        for group, hit in zip(hits, circular, strict=True):
            if known[group]:
                parts[known[group]].append(hit)
        metrics[f"by_{name}"] = accuracies(parts)
    return Score(metrics["circular_accuracy"], metrics)


BENCHMARK = Benchmark(
    name="mmbench",
    column="MMB",
    folders=("mmbench",),
    questions=("mmbench_dev_20230712.tsv", "mmbench_dev_en_20231003.tsv"),
    load=load,
    score=score,
    write_submission=write_workbook,
)
