"""Collect the miniature's results: a table, ``results.json``, loss curves and attention maps.

python -m playground.mini.report --build playground/mini/build --runs playground/mini/runs
"""

import argparse
import logging
import sys
from pathlib import Path

from align_ti.studies.attention.pictures import Viewer, draw_maps
from align_ti.studies.attention.report import choose_layers, corresponding_layer, maps_by_layer, pick_views
from align_ti.studies.loss_curves import plot_losses
from llava.console import setup_console
from llava.errors import InputError, run_cli
from llava.eval.table import Row, as_markdown, as_text, read_rows
from llava.files import write_json, write_text

logger = logging.getLogger("playground.mini.report")

MODELS = {
    "teacher": "Teacher",
    "student-sft": "Student, SFT",
    "student-vanilla-kd": "Student, vanilla KD",
    "student-align-ti": "Student, Align-TI",
}
VIEWS = 2


def collect(runs: Path) -> list[Row]:
    """Scores of all models, in the table's order.

    Raises:
        InputError: A model was not evaluated.
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
    write_json(runs / "results.json", results, indent=2)
    write_text(runs / "results.md", as_markdown(rows) + "\n")


def gqa_files(build: Path) -> tuple[Path, Path]:
    """GQA's question file of the miniature and the folder of its pictures."""
    questions = build / "eval" / "gqa" / "llava_gqa_testdev_balanced.jsonl"
    return questions, questions.parent / "data" / "images"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--build", type=Path, required=True, help="folder of the miniature's data")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the trained models")
    arguments = parser.parse_args()
    setup_console(times=False)
    runs = arguments.runs
    rows = collect(runs)
    write_scores(rows, runs)
    students = {name: runs / folder for folder, name in MODELS.items() if folder != "teacher"}
    plot_losses(students, runs / "loss_curves.png")
    views, columns = pick_views(*gqa_files(arguments.build), VIEWS), []
    first: tuple[int, int] | None = (
        None  # layer and depth of the teacher: maps of different layers differ for that reason alone
    )
    for folder, name in MODELS.items():
        viewer = Viewer.load(str(runs / folder))
        depth = viewer.model.config.num_hidden_layers
        if first is None:
            (layer,) = choose_layers(viewer, "auto", arguments.build / "finetune.json", arguments.build / "images")
            first = layer, depth
        columns += maps_by_layer(name, viewer, views, [corresponding_layer(*first, depth)])
    draw_maps(views, columns).savefig(runs / "attention_maps.png", dpi=130)
    files = ("results.json", "results.md", "loss_curves.png", "attention_maps.png")
    logger.info("written: %s", ", ".join(str(runs / name) for name in files))
    sys.stdout.write(f"\n{as_text(rows)}\n\n")


if __name__ == "__main__":
    run_cli(main)
