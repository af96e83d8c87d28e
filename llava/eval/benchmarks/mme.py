"""MME: yes/no questions, two per image; accuracy and accuracy+ (both answers correct) for each subtask.

Answers are read and scored as in MME's calculation script. The expected answers come from the release's text files, as
in LLaVA's conversion.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from llava.errors import InputError
from llava.eval.benchmark import SHORT_ANSWER, Benchmark, Score, first_existing, percent, read_jsonl
from llava.inference.question import Picture, Question

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
FULL_MARKS = 200
"""Highest score of a subtask: accuracy plus accuracy+, both in percent."""

YES_NO = "Please answer yes or no."

RELEASE = "MME_Benchmark_release_version"
PLACES = (f"{RELEASE}/MME_Benchmark", RELEASE, "images/MME_Benchmark", "images")
"""Folders that may contain the subtasks; the release's archive puts them into a folder of its own."""


def load(folder: Path, question_file: Path) -> list[Question]:
    """Questions with ``gold`` "yes" or "no"; ``category`` is the subtask and ``group`` the image.

    Raises:
        InputError: A file is missing or malformed, or the release has no such question.
    """
    release = first_existing(folder, PLACES, "release folder of MME")
    answers: dict[tuple[str, str], dict[str, str]] = {}
    questions = []
    for row in read_jsonl(question_file, ("question_id", "image", "text")):
        name = str(row["question_id"])
        subtask, stem = name.split("/")[0], name.split("/")[-1].split(".")[0]
        if subtask not in PERCEPTION + COGNITION:
            raise InputError(f"question {name!r} of {question_file}: {subtask!r} is not a subtask of MME")
        if (subtask, stem) not in answers:
            answers[subtask, stem] = _release_answers(release / subtask, stem)
        wording = _wording(row["text"])
        if wording not in answers[subtask, stem]:
            raise InputError(
                f"the release in {release / subtask} has no question {wording!r} in {stem}.txt "
                f"(question {name} of {question_file})"
            )
        questions.append(
            Question(
                name,
                row["text"],
                Picture.file(release / row["image"]),
                gold=answers[subtask, stem][wording],
                category=subtask,
                group=f"{subtask}/{stem}",
            )
        )
    return questions


def _wording(text: str) -> str:
    """A question without the instructions on how to answer, with single spaces."""
    return " ".join(text.replace(SHORT_ANSWER, " ").replace(YES_NO, " ").split())


def _release_answers(folder: Path, stem: str) -> dict[str, str]:
    """Map from the questions about one image to their answers; some subtasks keep these texts in a separate folder."""
    path = first_existing(folder, (f"questions_answers_YN/{stem}.txt", f"{stem}.txt"), "answers of MME")
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        fields = line.strip().split("\t")
        if len(fields) != 2 or fields[1].strip().lower() not in ("yes", "no"):
            raise InputError(f"{path}, line {number}: expected a question, a tab and Yes or No, found {line!r}")
        found[_wording(fields[0])] = fields[1].strip().lower()
    return found


def prediction(text: str) -> str:
    """ "yes" or "no" if the first four characters contain it ("yes" takes precedence), else "other"."""
    beginning = text.lower()[:4]
    return "yes" if "yes" in beginning else "no" if "no" in beginning else "other"


def score(questions: Sequence[Question], texts: Sequence[str | None]) -> Score:
    """Perception score as a percentage of its maximum, which is perception/20 with all ten subtasks.

    The metrics have each subtask, the sums for perception and cognition with their maxima, and the percentage of the
    maximum over the subtasks present (fewer in a partial run). A missing answer is wrong.
    """
    pictures: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    other = 0
    for question, text in zip(questions, texts, strict=True):
        said = "" if text is None else prediction(text)
        other += said == "other"
        pictures[question.category][question.group].append(said == question.gold)
    subtasks = {name: _subtask(list(pictures[name].values())) for name in PERCEPTION + COGNITION if name in pictures}
    metrics: dict = {"subtasks": subtasks, "neither_yes_nor_no": other}
    for kind, names in (("perception", PERCEPTION), ("cognition", COGNITION)):
        present = [subtasks[name]["score"] for name in names if name in subtasks]
        metrics[kind] = sum(present)
        metrics[f"{kind}_maximum"] = FULL_MARKS * len(present)
        metrics[f"{kind}_percent"] = percent(sum(present), FULL_MARKS * len(present))
    metrics["subtasks_absent"] = [name for name in PERCEPTION + COGNITION if name not in subtasks]
    return Score(metrics["perception_percent"], metrics)


def _subtask(pictures: list[list[bool]]) -> dict[str, float]:
    """Accuracy over questions and accuracy+ over pairs of questions about one image, in percent."""
    hits = [hit for picture in pictures for hit in picture]
    pairs = [picture[start : start + 2] for picture in pictures for start in range(0, len(picture), 2)]
    accuracy, plus = percent(sum(hits), len(hits)), percent(sum(all(pair) for pair in pairs), len(pairs))
    return {"accuracy": accuracy, "accuracy_plus": plus, "score": accuracy + plus, "count": len(hits)}


BENCHMARK = Benchmark(
    name="mme",
    column="MME",
    folders=("MME", "mme"),
    questions=("llava_mme.jsonl",),
    load=load,
    score=score,
)
