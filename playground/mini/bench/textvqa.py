"""TextVQA in miniature: reading the sign, with uncertain OCR guesses in the prompt."""

import random

from playground.mini.bench.common import (
    Setting,
    Summary,
    balanced,
    candidates,
    save_pictures,
    scene_pool,
    summarise,
    write_json,
    write_lines,
)
from playground.mini.prompts import ocr_question
from playground.mini.questions.signs import first_letter, ocr_tokens, read_sign

PLAN = ((read_sign, 240), (first_letter, 60))


def write(setting: Setting) -> Summary:
    """Write ``llava_textvqa_val_v051_ocr.jsonl``, ``TextVQA_0.5.1_val.json`` and ``train_images``.

    The OCR guesses contain the right word and three others, so they narrow the answer down but do not give it away.
    There is one question per image.
    """
    rng = random.Random(f"textvqa/{setting.seed}")
    scenes = scene_pool(setting.seed, 2, setting.number(2000, least=60))
    half = 4 * len(scenes) // 5
    items = balanced(candidates(scenes[:half], read_sign, rng), setting.number(PLAN[0][1]))
    letters = balanced(candidates(scenes[half:], first_letter, rng), setting.number(PLAN[1][1]))
    numbers = [item.index for item in items] + [half + item.index for item in letters]
    numbered = list(zip(numbers, items + letters, strict=True))
    rng.shuffle(numbered)
    lines, data, pictures = [], [], {}
    for position, (number, item) in enumerate(numbered):
        image = f"{setting.seed:04x}{number:012x}"
        lines.append(
            {
                "question_id": image,
                "image": f"{image}.png",
                "text": ocr_question(item.question, ocr_tokens(item.scene, rng)),
                "category": "default",
                "held_out_pair": item.scene.held_out_pair,
            }
        )
        data.append(
            {
                "question": item.question.text,
                "question_id": 34602 + position,
                "image_id": image,
                "image_width": setting.size,
                "image_height": setting.size,
                "image_classes": item.scene.names,
                "answers": [item.question.answer.lower()] * 10,
                "set_name": "val",
                "held_out_pair": item.scene.held_out_pair,
            }
        )
        pictures[setting.folder / "textvqa/train_images" / f"{image}.png"] = item.scene
    folder = setting.folder / "textvqa"
    write_lines(folder / "llava_textvqa_val_v051_ocr.jsonl", lines)
    write_json(
        folder / "TextVQA_0.5.1_val.json",
        {"dataset_type": "val", "dataset_name": "textvqa", "dataset_version": "0.5.1", "data": data},
    )
    save_pictures(pictures, setting.size)
    chosen = [item for _, item in numbered]
    return summarise(chosen, len(pictures), {"accuracy": 25.0})
