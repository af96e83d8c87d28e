"""POPE in miniature: is it there, with random, popular and adversarial negatives."""

import random
from typing import Any

from playground.mini.bench.common import Setting, Summary, save_pictures, scene_pool, write_lines
from playground.mini.questions.base import SHORT_SUFFIX
from playground.mini.questions.presence import STRATEGIES, presence


def write(setting: Setting) -> Summary:
    """Write ``llava_pope_test.jsonl``, ``coco/coco_pope_<category>.json`` (JSON lines) and ``val2014``.

    Every category asks one "yes" and one "no" question about each of the same images. Question ids are unique
    over the categories, and the same in both kinds of files; both keep the same order.
    """
    rng = random.Random(f"pope/{setting.seed}")
    number = setting.number(100)
    scenes = scene_pool(setting.seed, 3, 3 * number)
    pairs = [(i, scene) for i, scene in enumerate(scenes) if scene.held_out_pair][: number // 2]
    others = [(i, scene) for i, scene in enumerate(scenes) if not scene.held_out_pair][: number - len(pairs)]
    chosen = sorted(pairs + others)
    lines: list[dict[str, Any]] = []
    folder = setting.folder / "pope"
    for strategy in STRATEGIES:
        labels = []
        for index, scene in chosen:
            image = f"COCO_val2014_{index:012d}.png"
            for value in (True, False):
                question = presence(scene, rng, strategy, value)
                if question is None:
                    raise AssertionError(f"no {strategy} question about scene {scene.key}")
                identifier = len(lines) + 1
                pair = {"held_out_pair": scene.held_out_pair}
                lines.append(
                    {
                        "question_id": identifier,
                        "image": image,
                        "text": question.text + SHORT_SUFFIX,
                        "category": strategy,
                        **pair,
                    }
                )
                label = question.answer.lower()
                labels.append(
                    {"question_id": identifier, "image": image, "text": question.text, "label": label, **pair}
                )
        write_lines(folder / "coco" / f"coco_pope_{strategy}.json", labels)
    write_lines(folder / "llava_pope_test.jsonl", lines)
    save_pictures({folder / "val2014" / f"COCO_val2014_{i:012d}.png": scene for i, scene in chosen}, setting.size)
    return Summary(
        questions=len(lines),
        images=len(chosen),
        held_out_pair=sum(line["held_out_pair"] for line in lines),
        chance={"accuracy": 50.0, "f1": 66.7},
        kinds={strategy: 2 * len(chosen) for strategy in STRATEGIES},
    )
