"""Gather the miniature's results: one table, ``results.json``, loss curves and attention maps.

python -m playground.mini.report --build playground/mini/build --runs playground/mini/runs
"""

import argparse
import json
import logging
import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset

from align_ti.analysis.attention_pictures import Viewer, draw_maps
from align_ti.analysis.loss_curves import plot_losses
from align_ti.irs import instruction_relevance_scores
from llava.conversation import get_template
from llava.data.annotations import open_annotations
from llava.data.collator import ConversationCollator
from llava.data.dataset import ConversationDataset
from llava.data.images import load_image
from llava.errors import InputError, run_cli
from llava.eval.table import Row, as_markdown, as_text, read_rows

logger = logging.getLogger("playground.mini.report")

MODELS = {
    "teacher": "Teacher",
    "student-sft": "Student, SFT",
    "student-vanilla-kd": "Student, vanilla KD",
    "student-align-ti": "Student, Align-TI",
}
IRS_INPUTS = 128
VIEWS = 4


def collect(runs: Path) -> list[Row]:
    """Scores of all models, in the table's order.

    Raises:
        InputError: if a model was not evaluated.
    """
    rows = []
    for folder in MODELS:
        (row,) = read_rows(str(runs / "eval" / folder))
        if row.average is None:
            raise InputError(f"{runs / 'eval' / folder} lacks a benchmark; run scripts/eval/all.sh on {runs / folder}")
        rows.append(Row(MODELS[folder], row.scores))
    return rows


def write_scores(rows: list[Row], runs: Path) -> None:
    """``results.json`` (model -> benchmark -> score, and ``avg``) and ``results.md``."""
    results = {
        folder: {
            **{name: round(score, 2) for name, score in row.scores.items()},
            "avg": round(row.average or 0.0, 2),
        }
        for folder, row in zip(MODELS, rows, strict=True)
    }
    (runs / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (runs / "results.md").write_text(as_markdown(rows) + "\n")


def relevant_layers(viewers: dict[str, Viewer], build: Path) -> dict[str, int]:
    """The layer of each model with the highest IRS on training samples."""
    annotations = open_annotations(str(build / "finetune.json"))
    layers = {}
    for name, viewer in viewers.items():
        tower = viewer.model.get_vision_tower()
        data = ConversationDataset(
            annotations,
            viewer.tokenizer,
            get_template(viewer.template),
            image_processor=tower.image_processor,
            image_folder=build / "images",
            image_aspect_ratio="pad",
            visual_tokens=tower.num_patches,
        )
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[: 2 * IRS_INPUTS].tolist()
        collator = ConversationCollator(viewer.tokenizer.pad_token_id)
        batches = DataLoader(Subset(data, order), batch_size=32, collate_fn=collator)
        layers[name] = instruction_relevance_scores(viewer.model, batches, max_inputs=IRS_INPUTS, progress=False).layer
    return layers


def pick_views(build: Path) -> list[tuple[Path, str]]:
    """Held-out pictures, each with two questions that look at different places; with one where no picture has two."""
    by_image: dict[str, list[str]] = {}
    questions = build / "eval" / "gqa" / "llava_gqa_testdev_balanced.jsonl"
    for line in questions.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        question = record["text"].split("\n")[0]
        if question.startswith(("What is", "What can", "Where is")):
            by_image.setdefault(record["image"], []).append(question)
    folder = questions.parent
    images = next(path for path in (folder / "images", folder / "data" / "images", folder) if path.is_dir())
    views: list[tuple[Path, str]] = []
    for image, texts in by_image.items():
        if len(set(texts)) >= 2 and len(views) < VIEWS:
            views += [(images / image, text) for text in sorted(set(texts))[:2]]
    return views or [(images / image, texts[0]) for image, texts in list(by_image.items())[:VIEWS]]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--build", type=Path, required=True, help="folder of the miniature's data")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the trained models")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    runs = arguments.runs
    rows = collect(runs)
    write_scores(rows, runs)
    students = {name: runs / folder for folder, name in MODELS.items() if folder != "teacher"}
    plot_losses(students, runs / "loss_curves.png")
    viewers = {name: Viewer.load(str(runs / folder)) for folder, name in MODELS.items()}
    views = [(load_image(file), question) for file, question in pick_views(arguments.build)]
    draw_maps(views, viewers, relevant_layers(viewers, arguments.build), runs / "attention_maps.png")
    sys.stdout.write("\n" + as_text(rows) + "\n\n")
    logger.info(
        "written: %s",
        ", ".join(str(runs / name) for name in ("results.json", "results.md", "loss_curves.png", "attention_maps.png")),
    )


if __name__ == "__main__":
    run_cli(main)
