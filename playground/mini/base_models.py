"""Make the miniature's base models: a tokenizer, a SigLIP tower and two Qwen2 language models.

    python -m playground.mini.base_models --data playground/mini/build
    python -m playground.mini.base_models --data playground/mini/build --also student-llama-lm   (for Table 10)

They replace the models that a user would download (SigLIP so400m, Qwen2-7B and Qwen2-0.5B) and are saved in the same
formats. Existing models are kept; ``models/figures.json`` is written last.
"""

import argparse
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from llava.console import setup_console
from llava.errors import InputError, run_cli
from llava.files import write_json
from playground.mini.concepts import concepts
from playground.mini.pretrain_lm import PackedText, pretrain_lm
from playground.mini.pretrain_tokenizer import train_tokenizer
from playground.mini.pretrain_tower import pretrain_tower
from playground.mini.scenes import SIGN_WORDS
from playground.mini.tower import sign
from playground.mini.wording import a

logger = logging.getLogger("playground.mini.base_models")

LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "teacher-lm": {
        "hidden_size": 128,
        "layers": 4,
        "heads": 4,
        "kv_heads": 4,
        "vocab_multiple": 128,
        "learning_rate": 2e-3,
    },
    "student-lm": {
        "hidden_size": 80,
        "layers": 3,
        "heads": 4,
        "kv_heads": 2,
        "vocab_multiple": 64,
        "learning_rate": 2e-3,
    },
}
"""Sizes of teacher and student; their vocabularies differ in padding rows, like those of Qwen2-7B and Qwen2-0.5B."""

MORE_LANGUAGE_MODELS = {
    "student-llama-lm": LANGUAGE_MODELS["student-lm"] | {"architecture": "llama"},
    "teacher-small-lm": LANGUAGE_MODELS["teacher-lm"] | {"hidden_size": 96},
    "teacher-large-lm": LANGUAGE_MODELS["teacher-lm"] | {"hidden_size": 192},
}
"""Built on request: another architecture (Table 10), teachers of other sizes (Table 9)."""


def read_texts(data: Path, limit: int | None = None) -> list[str]:
    """Documents of ``text.jsonl``."""
    with open(data / "text.jsonl", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line, _ in zip(file, range(limit or 10**9), strict=False)]


def read_tower_records(data: Path) -> tuple[list[tuple[Path, list[str]]], list[str]]:
    """``(picture, labels)`` of ``tower.jsonl``, and the names of all objects ("a goat") and signs."""
    with open(data / "tower.jsonl", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return [(data / "images" / line["image"], line["labels"]) for line in lines], [
        *map(a, concepts()),
        *map(sign, SIGN_WORDS),
    ]


def make(name: str, folder: Path, result: str, work: Callable[[Path], dict[str, float]]) -> dict[str, float]:
    """Make one model, unless its figures file exists; the file is written when the model is finished.

    Returns:
        The model's figures and the ``seconds`` it took.
    """
    figures_file = folder / name / "figures.json"
    if figures_file.exists() and (folder / name / result).exists():
        logger.info("%s exists already", name)
        return json.loads(figures_file.read_text())
    logger.info("making %s", name)
    started = time.monotonic()
    (folder / name).mkdir(parents=True, exist_ok=True)
    figures = {**work(folder / name), "seconds": round(time.monotonic() - started, 1)}
    write_json(figures_file, figures, indent=2)
    logger.info("%s: %s", name, figures)
    return figures


def build_base_models(
    data: Path,
    *,
    tower_epochs: float,
    lm_epochs: dict[str, float],
    vocab_size: int,
    text_limit: int | None,
    also: Sequence[str] = (),
) -> dict[str, dict[str, float]]:
    """Make all base models below ``data/models``.

    Args:
        data: Folder written by ``python -m playground.mini.build``.
        tower_epochs: Passes over the tower's pictures.
        lm_epochs: Passes over the text, by role: ``teacher`` and ``student``.
        vocab_size: Vocabulary size of the tokenizer.
        text_limit: Number of documents to use; None for all.
        also: Names in ``MORE_LANGUAGE_MODELS``.

    Returns:
        Figures by model.

    Raises:
        InputError: The data was not built.
    """
    if not (data / "manifest.json").exists():
        raise InputError(f"{data} contains no miniature; run `python -m playground.mini.build --out {data}` first")
    size = json.loads((data / "manifest.json").read_text())["arguments"]["size"]
    folder = data / "models"

    def tokenizer_work(path: Path) -> dict[str, float]:
        return {"entries": float(len(train_tokenizer(read_texts(data, 20_000), path, vocab_size)))}

    figures = {"tokenizer": make("tokenizer", folder, "tokenizer.json", tokenizer_work)}
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")

    def tower_work(path: Path) -> dict[str, float]:
        records, names = read_tower_records(data)
        held_out = min(500, max(1, len(records) // 10))
        return pretrain_tower(records, names, tokenizer, path, image_size=size, epochs=tower_epochs, held_out=held_out)

    figures["tower"] = make("tower", folder, "model.safetensors", tower_work)
    text: PackedText | None = None
    for name, geometry in {**LANGUAGE_MODELS, **{name: MORE_LANGUAGE_MODELS[name] for name in also}}.items():

        def lm_work(path: Path, name: str = name, geometry: dict = geometry) -> dict[str, float]:
            nonlocal text
            text = text or PackedText(read_texts(data, text_limit), tokenizer)
            return pretrain_lm(text, tokenizer, path, epochs=lm_epochs[name.partition("-")[0]], **geometry)

        figures[name] = make(name, folder, "model.safetensors", lm_work)
    write_json(folder / "figures.json", figures, indent=2)
    return figures


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of `python -m playground.mini.build`")
    parser.add_argument("--tower-epochs", type=float, default=3.0)
    parser.add_argument(
        "--teacher-epochs",
        type=float,
        default=0.03,
        help="passes of the teacher's language model over the text; with more, it learns later to use the image",
    )
    parser.add_argument("--student-epochs", type=float, default=0.03)
    parser.add_argument("--vocab-size", type=int, default=1500)
    parser.add_argument("--also", nargs="+", choices=list(MORE_LANGUAGE_MODELS), default=[], help="more models")
    parser.add_argument("--text-limit", type=int, default=None, help="number of documents for the language models")
    arguments = parser.parse_args()
    setup_console()
    torch.manual_seed(0)
    build_base_models(
        arguments.data,
        tower_epochs=arguments.tower_epochs,
        lm_epochs={"teacher": arguments.teacher_epochs, "student": arguments.student_epochs},
        vocab_size=arguments.vocab_size,
        text_limit=arguments.text_limit,
        also=arguments.also,
    )


if __name__ == "__main__":
    run_cli(main)
