"""Instruction-to-vision maps of several models over the same pictures with different questions (Figs. 7 and 10).

    python -m align_ti.analysis.attention_report --model NAME=CHECKPOINT ... --questions FILE --question-images DIR \\
        --layers auto --data FILE --image-folder DIR --out docs/results

``--layers auto`` draws the layer of each model with the highest IRS (Eq. 3), ``all`` every layer.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from align_ti.analysis.attention_pictures import Column, Viewer, draw_maps
from align_ti.analysis.checkpoints import data_batches, parse_named
from align_ti.analysis.report import markdown_page, markdown_table, write_report
from align_ti.facts import run_facts
from align_ti.irs import instruction_relevance_scores
from llava.data.annotations import open_annotations
from llava.data.images import load_image
from llava.errors import InputError, run_cli
from llava.flags import add_device_flags

IRS_INPUTS = 128
LOOKING = ("What is", "What can", "What color", "Where is", "On which side", "Who is", "Which")
"""Beginnings of questions that have to be looked up at a place of the picture."""


def pick_views(questions: Path, folder: Path, pictures: int) -> list[tuple[Path, str]]:
    """The first pictures of which two different things are asked, each with two questions.

    Args:
        questions: LLaVA question file, rows of ``{"image", "text"}``.
        folder: where its pictures are.
        pictures: how many at most; where no picture has two questions, so many with one.

    Raises:
        InputError: no question of the file can be used.
    """
    by_image: dict[str, list[str]] = {}
    for line in questions.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        question = record["text"].split("\n")[0]
        if question.startswith(LOOKING) and "image" in record:
            by_image.setdefault(record["image"], []).append(question)
    views: list[tuple[Path, str]] = []
    for image, texts in by_image.items():
        if len(set(texts)) >= 2 and len(views) < 2 * pictures:
            views += [(folder / image, text) for text in sorted(set(texts))[:2]]
    views = views or [(folder / image, texts[0]) for image, texts in list(by_image.items())[:pictures]]
    if not views:
        raise InputError(f"{questions} asks nothing about a picture that begins with one of {', '.join(LOOKING)}")
    return views


def choose_layers(viewer: Viewer, layers: str, data: Path | None = None, folder: Path | None = None) -> list[int]:
    """The layers that ``--layers`` asks for: ``auto``, ``all``, or a number from 0 (or from the end).

    Args:
        viewer: the model.
        layers: what was asked for.
        data: annotation file, on samples of which ``auto`` takes the layer with the highest IRS (Eq. 3).
        folder: where its pictures are.

    Raises:
        InputError: ``auto`` without data, or a layer that the model does not have.
    """
    depth = viewer.model.config.num_hidden_layers
    if layers == "all":
        return list(range(depth))
    if layers == "auto":
        if data is None:
            raise InputError("--layers auto takes the layer with the highest IRS, on samples of --data; give that")
        rows = open_annotations(str(data))
        batches = data_batches(viewer.model, viewer.tokenizer, viewer.template, rows, folder or data.parent, 8, 0)
        return [instruction_relevance_scores(viewer.model, batches, max_inputs=IRS_INPUTS, progress=False).layer]
    if not layers.removeprefix("-").isdecimal() or not -depth <= int(layers) < depth:
        raise InputError(f"--layers {layers}: expected auto, all, or a layer from {-depth} to {depth - 1}")
    return [int(layers) % depth]


def look(name: str, viewer: Viewer, views: Sequence[tuple[Path, str]], layers: Sequence[int]) -> list[Column]:
    """A model's maps of every view in some layers."""
    pictures = [load_image(file) for file, _ in views]
    boxes = [viewer.seen_box(picture) for picture in pictures]
    seen = [viewer.maps(picture, asked).float().cpu() for picture, (_, asked) in zip(pictures, views, strict=True)]
    return [Column(name, layer, [maps[layer] for maps in seen], boxes) for layer in layers]


def overlaps(views: Sequence[tuple[Path, str]], column: Column) -> list[float]:
    """How alike the maps of two questions about the same picture are, for each picture asked twice in a row: their
    cosine similarity, 1 where both look at the same and 0 where at nothing in common."""
    return [
        torch.cosine_similarity(one.flatten(), two.flatten(), dim=0).item()
        for (file, _), (other, _), one, two in zip(views, views[1:], column.maps, column.maps[1:], strict=False)
        if file == other
    ]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", action="append", required=True, metavar="NAME=CHECKPOINT")
    parser.add_argument("--questions", type=Path, required=True, help="LLaVA question file (.jsonl)")
    parser.add_argument("--question-images", type=Path, required=True, help="folder of its pictures")
    parser.add_argument("--pictures", type=int, default=3, help="pictures drawn, each with two questions")
    parser.add_argument("--layers", default="auto", help="auto, all, or a number from 0")
    parser.add_argument("--data", type=Path, help="annotation file, for --layers auto")
    parser.add_argument("--image-folder", type=Path, help="where paths of its pictures start; else the data's folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--name", default="attention", help="of the results' files")
    add_device_flags(parser)
    arguments = parser.parse_args()
    paths = parse_named(arguments.model, "--model")
    views = pick_views(arguments.questions, arguments.question_images, arguments.pictures)
    columns = []
    for name, path in paths.items():  # one model in memory at a time
        viewer = Viewer.load(path, arguments.device, arguments.dtype)
        layers = choose_layers(viewer, arguments.layers, arguments.data, arguments.image_folder)
        columns += look(name, viewer, views, layers)
    rows: list[dict[str, Any]] = [
        {"model": column.name, "layer": column.layer, "overlap": overlaps(views, column)} for column in columns
    ]
    facts = run_facts("align_ti.analysis.attention_report")
    shown = [{"image": file.name, "question": question} for file, question in views]
    cells = [
        [row["model"], str(row["layer"]), f"{mean(row['overlap']):.3f}" if row["overlap"] else "-"] for row in rows
    ]
    text = markdown_page(
        "Where the instruction looks",
        [
            f"![maps]({arguments.name}.png)",
            markdown_table(["model", "layer", "alike"], cells),
            "The last column is the cosine similarity of the maps of two questions about the same picture, the mean "
            "over the pictures: 1 where the instruction does not matter.",
        ],
        facts,
    )
    write_report(
        arguments.out, arguments.name, {**facts, "views": shown, "columns": rows}, text, draw_maps(views, columns)
    )


if __name__ == "__main__":
    run_cli(main)
