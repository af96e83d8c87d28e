"""Write CHAIR's questions about images of COCO drawn at random.

    python -m llava.eval.chair_questions --eval-root playground/data/eval

``chair/annotations`` in the evaluation root must have COCO's instances and captions of a split. The images that were
drawn must then be in ``chair/val2014`` (or ``images``, ``val2017``, ...).
"""

import argparse
import json
import random
from functools import partial
from pathlib import Path

from llava.errors import InputError, run_cli
from llava.eval import chair_coco
from llava.eval.benchmark import first_existing
from llava.eval.benchmarks.chair import BENCHMARK
from llava.files import write_text
from llava.flags import add_flag

REQUEST = "Describe this image in detail."


def draw_questions(folder: Path, number: int, seed: int, text: str = REQUEST) -> list[dict[str, str | int]]:
    """Questions about ``number`` images that have a caption, in the order of their file names.

    Args:
        folder: Folder with COCO's annotation.
        number: Number of images.
        seed: Random seed of the choice; it depends on nothing but the file names.
        text: What is asked.

    Raises:
        InputError: The annotation is missing or malformed, or has fewer images.
    """
    annotation, _ = chair_coco.read(folder)
    names = sorted(name for name, image in annotation.images.items() if image in annotation.captions)
    if not 1 <= number <= len(names):
        raise InputError(f"--number is {number}; it must be 1 to {len(names):,}, the number of annotated images")
    chosen = sorted(random.Random(seed).sample(names, number))
    return [{"question_id": annotation.images[name], "image": name, "text": text} for name in chosen]


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    flag = partial(add_flag, parser)
    flag("--eval-root", type=Path, required=True, help="folder with one folder per benchmark")
    flag("--number", type=int, default=500, help="number of images")
    flag("--seed", type=int, default=0, help="random seed of the choice")
    flag("--text", default=REQUEST, help="what is asked about each image")
    flag("--overwrite", action="store_true", help="replace existing questions")
    arguments = parser.parse_args(argv)
    folder = first_existing(arguments.eval_root, BENCHMARK.folders, f"folder of {BENCHMARK.column}")
    target = folder / BENCHMARK.questions[0]
    if target.exists() and not arguments.overwrite:
        raise InputError(f"{target} exists; pass --overwrite to replace it")
    rows = draw_questions(folder, arguments.number, arguments.seed, arguments.text)
    write_text(target, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(f"{len(rows):,} questions in {target}")


if __name__ == "__main__":
    run_cli(main)
