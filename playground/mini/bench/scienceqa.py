"""ScienceQA in miniature: multiple choice, half about pictures, half about categories and scenes in words."""

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from playground.mini.bench.common import (
    Setting,
    Summary,
    candidates,
    save_pictures,
    scene_pool,
    write_json,
)
from playground.mini.layout import Scene
from playground.mini.prompts import science
from playground.mini.questions.base import Asker, Choice, Question, as_choice
from playground.mini.questions.category import category_at, which_of_category
from playground.mini.questions.counting import count_category, sum_of_counts
from playground.mini.questions.describe import compact
from playground.mini.questions.facts import count_list, kind_of, odd_one_out, total, which_is_choice
from playground.mini.questions.position import what_at, where
from playground.mini.questions.relation import what_beside

IMAGE_PLAN: tuple[tuple[Asker, int, str], ...] = (
    (what_at, 40, "objects"),
    (where, 40, "places"),
    (what_beside, 30, "places"),
    (category_at, 40, "categories"),
    (which_of_category, 30, "categories"),
    (count_category, 20, "counting"),
)
TEXT_PLAN = (
    (which_is_choice, 30, "categories"),
    (kind_of, 25, "categories"),
    (odd_one_out, 25, "categories"),
    (count_list, 30, "counting"),
    (total, 20, "counting"),
)
PREMISE_PLAN: tuple[tuple[Asker, int, str], ...] = (
    (where, 25, "places"),
    (what_beside, 25, "places"),
    (sum_of_counts, 20, "counting"),
)
SUBJECTS = {
    "objects": "natural science",
    "places": "social science",
    "categories": "natural science",
    "counting": "language science",
}


@dataclass(frozen=True)
class Problem:
    """A multiple-choice question, its topic and its context; ``scene`` is its picture or None."""

    choice: Choice
    topic: str
    solution: str
    context: str = ""
    scene: Scene | None = None
    held_out_pair: bool = False


class Letters:
    """Cycles through two, four, two and three options (half of ScienceQA has two); all letters are equally often
    correct."""

    def __init__(self) -> None:
        self.made = 0
        self.turns: Counter[int] = Counter()

    def choice(self, question: Question, rng: random.Random) -> Choice:
        """The question as multiple choice; questions with few wrong answers get fewer options."""
        options = min((2, 4, 2, 3)[self.made % 4], len(question.wrong) + 1)
        choice = as_choice(question, rng, options, right=self.turns[options] % options)
        if choice is None:
            raise AssertionError(f"{question} has no wrong answers to choose from")
        self.made += 1
        self.turns[options] += 1
        return choice


def write(setting: Setting) -> Summary:
    """Write ``llava_test_CQM-A.json``, ``problems.json``, ``pid_splits.json`` and ``images/test``.

    As in the published file, the prompts end before the suffix that asks for the option's letter: the
    evaluator adds it. There are two to four options; among questions with the same number, all letters are equally
    often correct.
    """
    rng, letters = random.Random(f"scienceqa/{setting.seed}"), Letters()
    problems = _picture_problems(setting, rng, letters) + _text_problems(setting, rng, letters)
    rng.shuffle(problems)
    rows, table, pictures = [], {}, {}
    for number, problem in enumerate(problems, start=1):
        pid = str(number)
        rows.append(_row(pid, problem))
        table[pid] = _entry(problem)
        if problem.scene is not None:
            pictures[setting.folder / "scienceqa/images/test" / pid / "image.png"] = problem.scene
    folder = setting.folder / "scienceqa"
    write_json(folder / "llava_test_CQM-A.json", rows)
    write_json(folder / "problems.json", table)
    write_json(folder / "pid_splits.json", {"train": [], "val": [], "test": list(table)})
    save_pictures(pictures, setting.size)
    kinds: dict[str, int] = {}
    for problem in problems:
        name = f"{'image' if problem.scene else 'text'}/{problem.choice.kind}"
        kinds[name] = kinds.get(name, 0) + 1
    return Summary(
        questions=len(problems),
        images=len(pictures),
        held_out_pair=sum(problem.held_out_pair for problem in problems),
        chance={
            "accuracy": _chance(problems),
            "image_accuracy": _chance([problem for problem in problems if problem.scene]),
        },
        kinds=dict(sorted(kinds.items())),
    )


def _picture_problems(setting: Setting, rng: random.Random, letters: Letters) -> list[Problem]:
    scenes = scene_pool(setting.seed, 1, setting.number(900, least=40))
    problems = []
    for asker, share, topic in IMAGE_PLAN:
        items = [item for item in candidates(scenes, asker, rng) if item.question.wrong]
        items.sort(key=lambda item: not item.scene.held_out_pair)
        half = setting.number(share) // 2
        for item in items[:half] + items[half - setting.number(share) :]:
            choice = letters.choice(item.question, rng)
            problems.append(Problem(choice, topic, item.question.sentence, "", item.scene, item.scene.held_out_pair))
    return problems


def _text_problems(setting: Setting, rng: random.Random, letters: Letters) -> list[Problem]:
    problems = []
    for fact, share, topic in TEXT_PLAN:
        for _ in range(setting.number(share)):
            question = fact(rng)
            problems.append(Problem(letters.choice(question, rng), topic, question.sentence))
    scenes = scene_pool(setting.seed, 1, setting.number(1200, least=80))[setting.number(900, least=40) :]
    for asker, share, topic in PREMISE_PLAN:
        items = candidates(scenes, asker, rng)
        for item in items[: setting.number(share)]:
            choice = letters.choice(item.question, rng)
            problems.append(Problem(choice, topic, item.question.sentence, compact(item.scene)))
    return problems


def _row(pid: str, problem: Problem) -> dict[str, Any]:
    text = science(problem.choice, problem.context or "N/A")
    image = {} if problem.scene is None else {"image": f"{pid}/image.png"}
    return {
        "id": pid,
        **image,
        "conversations": [
            {"from": "human", "value": f"<image>\n{text}" if image else text},
            {"from": "gpt", "value": f"The answer is {problem.choice.letter}."},
        ],
        "held_out_pair": problem.held_out_pair,
    }


def _entry(problem: Problem) -> dict[str, Any]:
    return {
        "question": problem.choice.text,
        "choices": list(problem.choice.options),
        "answer": problem.choice.right,
        "hint": problem.context,
        "image": None if problem.scene is None else "image.png",
        "task": "closed choice",
        "grade": "grade1",
        "subject": SUBJECTS[problem.topic],
        "topic": problem.topic,
        "category": problem.topic.capitalize(),
        "skill": problem.choice.kind,
        "lecture": "",
        "solution": problem.solution,
        "split": "test",
    }


def _chance(problems: list[Problem]) -> float:
    """Accuracy of uniform guessing, in percent."""
    return round(100 * sum(1 / len(p.choice.options) for p in problems) / max(len(problems), 1), 1)
