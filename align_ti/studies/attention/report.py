"""Instruction-to-vision maps of several models for the same images with different questions (Figs. 7 and 10).

    python -m align_ti.studies.attention.report --model NAME=CHECKPOINT ... --questions FILE --question-images DIR \\
        --layers auto --data FILE --image-folder DIR --out results

``--layers auto`` uses the layer with the highest IRS (Eq. 3) of the first model (the teacher) for all models, even if
another layer of theirs has a higher IRS: maps of different layers differ for that reason alone. ``all`` draws every
layer. A repeated name is another seed: the first seed is drawn, all of them are measured, on more images than are
drawn.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from tqdm import tqdm

from align_ti.irs import instruction_relevance_scores
from align_ti.studies.attention.pictures import Column, Viewer, draw_maps
from align_ti.studies.common.checkpoints import data_batches, parse_groups
from align_ti.studies.common.provenance import run_facts
from align_ti.studies.common.report import markdown_page, markdown_table, write_report
from llava.console import setup_console
from llava.data.annotations.table import open_annotations
from llava.data.images import load_image
from llava.errors import InputError, run_cli
from llava.flags import add_device_flags

IRS_INPUTS = 128
LOOKING = ("What is", "What can", "What color", "Where is", "On which side", "Who is", "Which")
"""First words of questions whose answer is found at one place in the image."""


def pick_views(questions: Path, folder: Path, pictures: int) -> list[tuple[Path, str]]:
    """The first images with two different questions, each with these two questions.

    Args:
        questions: LLaVA question file, with rows of ``{"image", "text"}``.
        folder: Folder of its images.
        pictures: Maximum number of images. If no image has two questions, images with one question are used.

    Raises:
        InputError: The file has no suitable question.
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
        raise InputError(f"{questions} has no question about an image that begins with one of {', '.join(LOOKING)}")
    return views


def choose_layers(viewer: Viewer, layers: str, data: Path | None = None, folder: Path | None = None) -> list[int]:
    """The layers that ``--layers`` selects: ``auto``, ``all``, or an index from 0 (negative: from the end).

    Args:
        viewer: The model.
        layers: Value of ``--layers``.
        data: Annotation file; ``auto`` computes the IRS (Eq. 3) on its samples.
        folder: Folder of its images.

    Raises:
        InputError: ``auto`` without data, or a layer that the model does not have.
    """
    depth = viewer.model.config.num_hidden_layers
    if layers == "all":
        return list(range(depth))
    if layers == "auto":
        if data is None:
            raise InputError("--layers auto computes the IRS of the layers on samples of --data; give --data")
        rows = open_annotations(str(data))
        batches = data_batches(viewer.model, viewer.tokenizer, viewer.template, rows, folder or data.parent, 8, 0)
        return [instruction_relevance_scores(viewer.model, batches, max_inputs=IRS_INPUTS, progress=False).layer]
    if not layers.removeprefix("-").isdecimal() or not -depth <= int(layers) < depth:
        raise InputError(f"--layers {layers}: expected auto, all, or a layer from {-depth} to {depth - 1}")
    return [int(layers) % depth]


def corresponding_layer(layer: int, depth: int, other_depth: int) -> int:
    """The layer of another model at the same share of its depth: layer 21 of 28 is 18 of 24, as in ``--iva_layer 75%``.

    Args:
        layer: Layer, from 0, of a model with ``depth`` layers.
        depth: Number of layers of that model.
        other_depth: Number of layers of the other model.
    """
    return layer * other_depth // depth


def maps_by_layer(name: str, viewer: Viewer, views: Sequence[tuple[Path, str]], layers: Sequence[int]) -> list[Column]:
    """A model's maps of every view in some layers."""
    pictures = [load_image(file) for file, _ in views]
    boxes = [viewer.seen_box(picture) for picture in pictures]
    seen = [viewer.maps(picture, asked).float().cpu() for picture, (_, asked) in zip(pictures, views, strict=True)]
    return [Column(name, layer, [maps[layer] for maps in seen], boxes) for layer in layers]


def overlaps(views: Sequence[tuple[Path, str]], column: Column) -> list[float]:
    """Cosine similarity of the maps of two questions about the same image, for each image with two consecutive
    questions: 1 if both attend to the same places, 0 if to disjoint ones."""
    return [
        torch.cosine_similarity(one.flatten(), two.flatten(), dim=0).item()
        for (file, _), (other, _), one, two in zip(views, views[1:], column.maps, column.maps[1:], strict=False)
        if file == other
    ]


def likeness(column: Column, other: Column) -> float | None:
    """Cosine similarity of two models' maps of the same views, averaged over the views; None if the models divide
    images into different grids."""
    if column.maps[0].shape != other.maps[0].shape:
        return None
    pairs = zip(column.maps, other.maps, strict=True)
    return mean(torch.cosine_similarity(one.flatten(), two.flatten(), dim=0).item() for one, two in pairs)


def measure(views: Sequence[tuple[Path, str]], column: Column, first: Column | None) -> dict[str, Any]:
    """Measures of a model's maps in one layer: :func:`overlaps` and, relative to the first model, :func:`likeness`."""
    questions = overlaps(views, column)
    return {
        "layer": column.layer,
        "questions": mean(questions) if questions else None,
        "like_first": None if first is None or column.name == first.name else likeness(column, first),
    }


def layer_of(row: dict[str, Any]) -> int:
    """The layer in which all seeds of a row were measured.

    Raises:
        InputError: The seeds were measured in different layers, so their mean is meaningless.
    """
    layers = {seed["layer"] for seed in row["seeds"]}
    if len(layers) > 1:
        found = ", ".join(map(str, sorted(layers)))
        raise InputError(
            f"the seeds of {row['model']!r} were measured in different layers ({found}): measure them in the same layer"
        )
    return int(layers.pop())


def as_markdown(name: str, rows: Sequence[dict[str, Any]], views: int, facts: dict[str, str]) -> str:
    """The figure and the measures: means over a model's seeds with their intervals, and differences paired by seed.

    Raises:
        InputError: Seeds of one row were measured in different layers.
    """
    first = rows[0]["model"]

    def values(row: dict[str, Any], key: str) -> list[float]:
        return [seed[key] for seed in row["seeds"] if seed[key] is not None]

    def cell(row: dict[str, Any], key: str) -> str:
        found = values(row, key)
        return _estimate(found) if found else "-"

    cells = [[row["model"], _layer_text(row), cell(row, "like_first"), cell(row, "questions")] for row in rows]
    parts = [
        f"![maps]({name}.png)",
        markdown_table(["model", "layer", f"like {first}", "alike"], cells),
        f"Cosine similarities of maps, means over {views} questions: with those of {first}, and between two questions "
        "about the same image (1 if the instruction does not matter).",
    ]
    several = [row for row in rows if len(values(row, "like_first")) == len(row["seeds"]) > 1]
    others = [row for row in several[1:] if len(row["seeds"]) == len(several[0]["seeds"])]
    alike = [row for row in others if layer_of(row) == layer_of(several[0])]
    if alike:
        differences = [
            [
                row["model"],
                *(_difference(values(row, key), values(several[0], key)) for key in ("like_first", "questions")),
            ]
            for row in alike
        ]
        against = markdown_table(["", f"like {first}", "alike"], differences)
        parts += [
            f"Relative to {several[0]['model']}, paired by seed, all in layer {_layer_text(several[0])}:",
            against,
        ]
    apart = [f"{row['model']} (layer {_layer_text(row)})" for row in others if row not in alike]
    if apart:
        parts.append(
            f"Not compared with {several[0]['model']} (layer {_layer_text(several[0])}), which was measured in another "
            "layer: "
            f"{', '.join(apart)}."
        )
    return markdown_page("Where the instruction attends", parts, facts)


def _layer_text(row: dict[str, Any]) -> str:
    return f"{layer_of(row)} of 0 to {row['depth'] - 1}"


def _estimate(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    from align_ti.studies.common.intervals import estimate  # needs scipy, the extra `tables`

    return estimate(values).text(3)


def _difference(values: Sequence[float], baseline: Sequence[float]) -> str:
    from align_ti.studies.common.intervals import paired_difference

    return paired_difference(values, baseline).text(3) if len(values) == len(baseline) > 0 else "-"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="NAME=CHECKPOINT",
        help="repeat a name for further seeds of a model",
    )
    parser.add_argument("--questions", type=Path, required=True, help="LLaVA question file (.jsonl)")
    parser.add_argument("--question-images", type=Path, required=True, help="folder of its images")
    parser.add_argument("--pictures", type=int, default=3, help="number of images to draw, each with two questions")
    parser.add_argument(
        "--measured", type=int, default=100, help="number of images to measure, each with two questions"
    )
    parser.add_argument(
        "--layers",
        default="auto",
        help="auto: the layer with the first model's highest IRS, for all models (at the same relative depth where the "
        "number of layers differs); all: every layer; or an index from 0",
    )
    parser.add_argument("--data", type=Path, help="annotation file, for --layers auto")
    parser.add_argument(
        "--image-folder", type=Path, help="folder that its image paths are relative to; default: the data's folder"
    )
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument("--name", default="attention", help="name of the output files")
    add_device_flags(parser)
    arguments = parser.parse_args()
    setup_console(times=False)
    groups = parse_groups(arguments.model, "--model")
    places = arguments.questions, arguments.question_images
    views = pick_views(*places, max(arguments.pictures, arguments.measured))
    drawn = views[: len(pick_views(*places, arguments.pictures))]
    rows: list[dict[str, Any]] = []
    shown: list[Column] = []
    first: Column | None = None
    first_depth = 0
    for name, paths in groups.items():
        seeds, depths = [], []
        one_at_a_time = tqdm(paths, desc=name, unit="model", disable=None)
        for seed, path in enumerate(one_at_a_time):
            viewer = Viewer.load(path, arguments.device, arguments.dtype)
            depths.append(int(viewer.model.config.num_hidden_layers))
            if arguments.layers == "auto" and first is not None:
                layers = [corresponding_layer(first.layer, first_depth, depths[-1])]
            else:
                layers = choose_layers(viewer, arguments.layers, arguments.data, arguments.image_folder)
            columns = maps_by_layer(name, viewer, views, layers)
            if arguments.layers != "all" and first is None:  # one map per model
                first, first_depth = columns[0], depths[-1]
            seeds.append([measure(views, column, first) for column in columns])
            shown += columns if seed == 0 else []
        if len(set(depths)) > 1:
            raise InputError(
                f"the checkpoints named {name!r} have different numbers of layers ({depths}); give them different names"
            )
        rows += [{"model": name, "depth": depths[0], "seeds": list(of_layer)} for of_layer in zip(*seeds, strict=True)]
    facts = run_facts("align_ti.studies.attention.report")
    asked = [{"image": file.name, "question": question} for file, question in drawn]
    text = as_markdown(arguments.name, rows, len(views), facts)
    content = {**facts, "views": asked, "measured": len(views), "models": rows}
    write_report(arguments.out, arguments.name, content, text, draw_maps(drawn, shown))


if __name__ == "__main__":
    run_cli(main)
