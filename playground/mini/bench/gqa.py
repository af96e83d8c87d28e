"""GQA in miniature: open, verify, choose, compare and logical questions with short answers."""

import random

from playground.mini.bench.common import (
    Item,
    Setting,
    Summary,
    balanced,
    blind_accuracy,
    candidates,
    save_pictures,
    scene_pool,
    summarise,
    write_json,
    write_lines,
)
from playground.mini.questions.background import background_colour
from playground.mini.questions.base import SHORT_SUFFIX, Asker
from playground.mini.questions.category import category_at, place_of_category, which_of_category
from playground.mini.questions.position import what_at, where
from playground.mini.questions.presence import both, presence
from playground.mini.questions.relation import is_beside, what_beside, which_larger, which_side

PLAN: tuple[tuple[Asker, int, tuple[str, str, str]], ...] = (
    (what_at, 190, ("query", "cat", "categoryThis")),
    (where, 60, ("query", "attr", "positionQuery")),
    (what_beside, 60, ("query", "rel", "relO")),
    (which_of_category, 80, ("query", "cat", "categoryThat")),
    (category_at, 90, ("query", "cat", "categoryAttr")),
    (place_of_category, 25, ("query", "attr", "positionQuery")),
    (background_colour, 25, ("query", "global", "material")),
    (which_side, 50, ("choose", "rel", "relChooser")),
    (which_larger, 30, ("compare", "attr", "comparativeChoose")),
    (is_beside, 40, ("verify", "rel", "relVerify")),
    (presence, 90, ("verify", "obj", "exist")),
    (both, 60, ("logical", "obj", "existAnd")),
)
"""Kinds of questions, how many of each (800 in all), and their GQA types: structural, semantic, detailed."""


def write(setting: Setting) -> Summary:
    """Write ``llava_gqa_testdev_balanced.jsonl`` and, under ``data``, the answers and the images."""
    rng = random.Random(f"gqa/{setting.seed}")
    scenes = scene_pool(setting.seed, 0, setting.number(2400, least=60))
    types = {asker.__name__: names for asker, _, names in PLAN}
    items: list[Item] = []
    for asker, share, _ in PLAN:
        items += balanced(candidates(scenes, asker, rng), setting.number(share))
    rng.shuffle(items)
    lines, answers = [], {}
    for position, item in enumerate(items):
        identifier, image = f"{20_000_000 + position}", f"n{item.index:06d}"
        question = item.question
        structural, semantic, detailed = types[question.kind]
        lines.append(
            {
                "question_id": identifier,
                "image": f"{image}.png",
                "text": question.text + SHORT_SUFFIX,
                "category": "default",
                "held_out_pair": item.scene.held_out_pair,
            }
        )
        answers[identifier] = {
            "imageId": image,
            "question": question.text,
            "answer": question.answer.lower(),
            "fullAnswer": question.sentence,
            "isBalanced": True,
            "groups": {"global": semantic, "local": question.kind},
            "types": {"structural": structural, "semantic": semantic, "detailed": detailed},
            "held_out_pair": item.scene.held_out_pair,
        }
    write_lines(setting.folder / "gqa/llava_gqa_testdev_balanced.jsonl", lines)
    data = setting.folder / "gqa/data"
    write_json(data / "testdev_balanced_questions.json", answers)
    pictures = {data / "images" / f"n{item.index:06d}.png": item.scene for item in items}
    save_pictures(pictures, setting.size)
    return summarise(items, len(pictures), {"accuracy": blind_accuracy(items)})
