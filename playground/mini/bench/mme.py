"""MME in miniature: two yes/no questions per image, one with each answer, in eight of the fourteen subtasks."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playground.mini.bench.common import Setting, Summary, save_pictures, scene_pool, write_lines
from playground.mini.layout import Scene
from playground.mini.questions.background import is_background_colour, is_background_pattern
from playground.mini.questions.base import SHORT_SUFFIX, Question
from playground.mini.questions.category import is_category_at
from playground.mini.questions.counting import is_count, is_sum
from playground.mini.questions.presence import presence
from playground.mini.questions.relation import is_beside
from playground.mini.questions.signs import sign_says

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
"""The published subtasks. The miniature has no counterpart of posters, celebrity, landmark, artwork, text_translation
and code_reasoning."""

YesNoAsker = Callable[[Scene, random.Random, bool], Question | None]

SUBTASKS: dict[str, YesNoAsker] = {
    "existence": lambda scene, rng, answer: presence(scene, rng, None, answer),
    "count": is_count,
    "position": is_beside,
    "color": is_background_colour,
    "scene": is_background_pattern,
    "OCR": sign_says,
    "commonsense_reasoning": is_category_at,
    "numerical_calculation": is_sum,
}

IMAGES_PER_SUBTASK = 25
GROUND_TRUTH = "MME_Benchmark_release_version"
INSTRUCTION = " Please answer yes or no."


def write(setting: Setting) -> Summary:
    """Write ``llava_mme.jsonl`` and ``MME_Benchmark_release_version/<subtask>/<name>.{png,txt}``.

    A text file has a line "question<TAB>answer" for each of its image's two questions.
    """
    rng = random.Random(f"mme/{setting.seed}")
    number = setting.number(IMAGES_PER_SUBTASK, least=2)
    scenes = scene_pool(setting.seed, 4, len(SUBTASKS) * number * 12)
    lines: list[dict[str, Any]] = []
    pictures: dict[Path, Scene] = {}
    truth = setting.folder / "MME" / GROUND_TRUTH
    for position, (subtask, asker) in enumerate(SUBTASKS.items()):
        (truth / subtask).mkdir(parents=True)
        own = scenes[position :: len(SUBTASKS)]
        for name, scene, questions in _choose(own, asker, number, rng):
            image = f"{subtask}/{name}.png"
            pictures[truth / image] = scene
            rows = [f"{question.text}{INSTRUCTION}\t{question.answer}\n" for question in questions]
            (truth / subtask / f"{name}.txt").write_text("".join(rows), encoding="utf-8")
            lines += [
                {
                    "question_id": image,
                    "image": image,
                    "text": question.text + SHORT_SUFFIX,
                    "category": subtask,
                    "held_out_pair": scene.held_out_pair,
                }
                for question in questions
            ]
    write_lines(setting.folder / "MME/llava_mme.jsonl", lines)
    save_pictures(pictures, setting.size)
    perception = sum(subtask in PERCEPTION for subtask in SUBTASKS)
    return Summary(
        questions=len(lines),
        images=len(pictures),
        held_out_pair=sum(line["held_out_pair"] for line in lines),
        # Always "yes": half of the questions and no image with both right, 50 points of a subtask's 200.
        chance={
            "perception": 50.0 * perception,
            "perception_percent": 25.0,
            "cognition": 50.0 * (len(SUBTASKS) - perception),
            "cognition_percent": 25.0,
        },
        kinds={subtask: sum(line["category"] == subtask for line in lines) for subtask in SUBTASKS},
    )


def _choose(
    scenes: list[Scene], asker: YesNoAsker, number: int, rng: random.Random
) -> list[tuple[str, Scene, list[Question]]]:
    """``number`` scenes with one "yes" and one "no" question each; up to half of the scenes have a held-out pair."""
    found = []
    for index, scene in enumerate(scenes):
        yes, no = asker(scene, rng, True), asker(scene, rng, False)
        if yes is not None and no is not None:
            found.append((f"{index:04d}", scene, [yes, no]))
    pairs = [entry for entry in found if entry[1].held_out_pair][: number // 2]
    others = [entry for entry in found if not entry[1].held_out_pair][: number - len(pairs)]
    return sorted(pairs + others, key=lambda entry: entry[0])
