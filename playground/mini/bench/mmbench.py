"""MMBench in miniature: lettered options, with each rotation in its own row, and images in the table."""

import base64
import csv
import io
import random

from playground.mini.annotations import objects_hint
from playground.mini.bench.common import (
    Item,
    Setting,
    Summary,
    balanced,
    candidates,
    scene_pool,
    summarise,
)
from playground.mini.layout import Scene
from playground.mini.questions.background import background_pattern
from playground.mini.questions.base import Asker, as_choice
from playground.mini.questions.category import category_at, which_of_category
from playground.mini.questions.counting import count_category
from playground.mini.questions.position import what_at, where
from playground.mini.questions.presence import which_present
from playground.mini.questions.relation import what_beside
from playground.mini.questions.signs import read_sign
from playground.mini.render import render
from playground.mini.wording import LETTERS

INSTANCE = "finegrained_perception (instance-level)"
CROSS = "finegrained_perception (cross-instance)"

PLAN: tuple[tuple[Asker, int, str, str], ...] = (
    (what_at, 20, "object_localization", INSTANCE),
    (where, 20, "object_localization", INSTANCE),
    (what_beside, 20, "spatial_relationship", CROSS),
    (count_category, 14, "object_localization", INSTANCE),
    (category_at, 12, "function_reasoning", "attribute_reasoning"),
    (which_of_category, 10, "attribute_recognition", INSTANCE),
    (which_present, 10, "image_topic", "coarse_perception"),
    (read_sign, 8, "ocr", INSTANCE),
    (background_pattern, 6, "image_style", "coarse_perception"),
)
"""Kinds of questions, how many of each (120 in all), and MMBench's leaf category and level-2 category."""

COLUMNS = (
    "index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source", "l2-category",
    "comment", "split", "held_out_pair",
)  # fmt: skip
ROTATION = 1_000_000
HINT_SHARE = 0.15


def write(setting: Setting) -> Summary:
    """Write ``mmbench_dev_20230712.tsv``.

    The rows of a question's rotations have indices that differ by multiples of 1,000,000; a rotation moves
    the first option to the end. Fields are separated by tabs, images are PNG in base64.
    """
    rng = random.Random(f"mmbench/{setting.seed}")
    scenes = scene_pool(setting.seed, 5, setting.number(700, least=60))
    chosen: list[tuple[Item, str, str]] = []
    for asker, share, category, level2 in PLAN:
        found = [item for item in candidates(scenes, asker, rng) if len(item.question.wrong) == 3]
        chosen += [(item, category, level2) for item in balanced(found, setting.number(share))]
    rng.shuffle(chosen)
    rows: list[dict[str, str]] = []
    for index, (item, category, level2) in enumerate(chosen):
        rows += _rotations(index, item, category, level2, rng, setting.size)
    folder = setting.folder / "mmbench"
    folder.mkdir(parents=True)
    # The published table lists all first rounds, then the second ones, and so on.
    rows.sort(key=lambda row: int(row["index"]))
    with open(folder / "mmbench_dev_20230712.tsv", "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    items = [item for item, _, _ in chosen]
    # Circular: guessing anew for each of four rotations; someone who sticks to one option's text gets 25.
    chance = {"row_accuracy": 25.0, "circular_accuracy": round(100 / 4**4, 1)}
    summary = summarise(items, len({item.index for item in items}), chance)
    summary.questions = len(rows)
    return summary


def _rotations(
    index: int, item: Item, category: str, level2: str, rng: random.Random, size: int
) -> list[dict[str, str]]:
    """One row for each rotation of the options."""
    choice = as_choice(item.question, rng, right=index % 4)
    if choice is None:
        raise AssertionError(f"{item.question} has no wrong answers to choose from")
    picture = _base64(item.scene, size)
    hint = objects_hint(item.scene) if rng.random() < HINT_SHARE and item.question.kind != "count_category" else ""
    rows = []
    for turn in range(len(choice.options)):
        options = choice.options[turn:] + choice.options[:turn]
        rows.append(
            {
                "index": str(index + turn * ROTATION),
                "question": choice.text,
                "hint": hint,
                **dict(zip(LETTERS, options, strict=True)),
                "answer": LETTERS[options.index(item.question.answer)],
                "category": category,
                "image": picture,
                "source": "playground.mini",
                "l2-category": level2,
                "comment": "",
                "split": "dev",
                "held_out_pair": str(item.scene.held_out_pair).lower(),
            }
        )
    return rows


def _base64(scene: Scene, size: int) -> str:
    """A scene's picture as PNG in base64."""
    buffer = io.BytesIO()
    render(scene, size).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
