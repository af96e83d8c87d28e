"""Build the miniature's data: pictures, LLaVA JSON files, text, labels for the tower, and six benchmarks.

    python -m playground.mini.build --out playground/mini/build

If the arguments and the code have not changed, a second run does nothing; this is read from ``manifest.json``, which is
written last.
"""

import argparse
import hashlib
import json
import logging
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llava.errors import InputError, run_cli
from llava.files import write_json
from playground.mini.bench.common import POOL, Setting
from playground.mini.bench.write import WRITERS, BenchmarkJob, run_benchmark, write_summary
from playground.mini.concepts import ATLAS
from playground.mini.jobs import PictureJob, TextJob, chunks, in_order, run_pictures, run_text, run_words, spans
from playground.mini.layout import PATCHES
from playground.mini.scenes import Split

log = logging.getLogger("playground.mini.build")

MANIFEST = "manifest.json"
PARTIAL = ".partial"
OTHER_CODE = ("pretrain_", "base_models", "report")
"""Prefixes of files next to this one that do not affect what is built."""


@dataclass(frozen=True)
class BuildConfig:
    """What to build. Sizes are numbers of scenes, samples or documents."""

    scenes: int = 8000  # fine-tuning scenes
    samples_per_scene: int = 3
    pretrain_scenes: int = 8000  # captions and grounded questions
    text_documents: int = 16000
    word_scenes: int = 12000  # scenes in words, ten conversations each
    held_out_scenes: int = 1000  # test scenes annotated like the fine-tuning ones
    eval_scale: float = 1.0  # multiplies the benchmarks' numbers of questions
    size: int = 80  # side of a picture in pixels
    seed: int = 0

    def scaled(self, factor: float) -> "BuildConfig":
        """A copy with all numbers of scenes, documents and questions multiplied by ``factor``.

        Raises:
            InputError: The factor is not above 0.
        """
        if factor <= 0:
            raise InputError(f"--scale is {factor}; it must be above 0")
        return replace(
            self,
            scenes=max(1, round(self.scenes * factor)),
            held_out_scenes=max(1, round(self.held_out_scenes * factor)),
            pretrain_scenes=max(1, round(self.pretrain_scenes * factor)),
            text_documents=max(1, round(self.text_documents * factor)),
            word_scenes=max(1, round(self.word_scenes * factor)),
            eval_scale=self.eval_scale * factor,
        )

    def check(self) -> None:
        """Raise InputError for a value out of range."""
        for name, least in (
            ("scenes", 1),
            ("held_out_scenes", 1),
            ("samples_per_scene", 1),
            ("pretrain_scenes", 1),
            ("text_documents", 1),
            ("word_scenes", 1),
        ):
            if getattr(self, name) < least:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be at least {least}")
        if not 0 < self.eval_scale <= 10:
            raise InputError(f"--eval-scale is {self.eval_scale}; it must be above 0 and at most 10")
        if not 32 <= self.size <= 1024 or self.size % PATCHES:
            raise InputError(f"--size is {self.size} px; it must be 32 to 1024 and a multiple of {PATCHES}")


def code_version() -> str:
    """A hash of the code and sprites that determine what is built."""
    here = Path(__file__).resolve().parent
    files = [path for path in sorted(here.rglob("*.py")) if not path.name.startswith(OTHER_CODE)]
    digest = hashlib.sha256()
    for path in (*files, ATLAS / "concepts.json", ATLAS / "atlas.png"):
        digest.update(path.relative_to(here).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def build(out: Path, config: BuildConfig, workers: int = 2) -> dict[str, Any]:
    """Build into ``out``, unless it already contains the same build; returns the manifest.

    Everything is built in ``out/.partial`` and moved into place at the end, the manifest last. Other files in ``out``
    are left unchanged.

    Raises:
        InputError: An argument is out of range, or ``out`` is a file.
    """
    config.check()
    if out.is_file():
        raise InputError(f"--out {out} is a file; give a folder")
    wanted = {"arguments": asdict(config), "version": code_version()}
    manifest = read_manifest(out)
    if manifest and all(manifest.get(key) == value for key, value in wanted.items()):
        log.info("%s is up to date", out)
        return manifest
    started = time.monotonic()
    partial = out / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    counts: dict[str, Any] = {**_training_data(partial, config, workers), **_text(partial, config, workers)}
    counts["benchmarks"] = _benchmarks(partial, config, workers)
    contents = _digest(partial)
    (out / MANIFEST).unlink(missing_ok=True)
    for item in sorted(partial.iterdir()):
        target = out / item.name
        if target.is_dir():
            shutil.rmtree(target)
        item.replace(target)
    partial.rmdir()
    manifest = {**wanted, "contents": contents, "counts": counts, "seconds": round(time.monotonic() - started, 1)}
    write_json(out / MANIFEST, manifest)
    return manifest


def _digest(folder: Path) -> str:
    """A hash of the files that models are trained on: other versions of the code may build the same files."""
    digest = hashlib.sha256()
    for path in sorted(set(folder.glob("*.json*")) - {folder / "held_out.json"}):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def read_manifest(out: Path) -> dict[str, Any] | None:
    """The manifest of a finished build, or None."""
    path = out / MANIFEST
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError:
        log.warning("%s is not valid JSON; building again", path)
        return None


def _training_data(folder: Path, config: BuildConfig, workers: int) -> dict[str, int]:
    """Pictures, pretrain.json, finetune.json, held_out.json and tower.jsonl."""
    counts: dict[str, int] = {}
    tower: list[str] = []
    plan: list[tuple[Split, int, int, str]] = [
        ("pretrain", 0, config.pretrain_scenes, "pretrain.json"),
        ("train", 0, config.scenes, "finetune.json"),
        ("test", len(WRITERS) * POOL, config.held_out_scenes, "held_out.json"),  # after those of the benchmarks
    ]
    for split, first, number, name in plan:
        images = folder / "images"
        (images / split).mkdir(parents=True)
        jobs = [
            PictureJob(images, config.seed, split, first + start, first + stop, config.samples_per_scene, config.size)
            for start, stop in chunks(number)
        ]
        rows: list[str] = []
        for result in in_order(run_pictures, jobs, spans(jobs), workers, name, "scene"):
            rows += result.samples
            tower += result.tower if split != "test" else []
        _write_list(folder / name, rows)
        counts[name] = len(rows)
    (folder / "tower.jsonl").write_text("\n".join(tower) + "\n", encoding="utf-8")
    return {**counts, "tower.jsonl": len(tower)}


def _write_list(path: Path, rows: list[str]) -> None:
    """Write a JSON list of these rows, one per line."""
    path.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")


def _text(folder: Path, config: BuildConfig, workers: int) -> dict[str, int]:
    """text.jsonl and words.json."""
    documents = [TextJob(config.seed, *span) for span in chunks(config.text_documents, 1000)]
    with open(folder / "text.jsonl", "w", encoding="utf-8") as file:
        for lines in in_order(run_text, documents, spans(documents), workers, "text.jsonl", "document"):
            file.write("\n".join(lines) + "\n")
    scenes = [TextJob(config.seed, *span) for span in chunks(config.word_scenes, 1000)]
    rows: list[str] = []
    for lines in in_order(run_words, scenes, spans(scenes), workers, "words.json", "scene"):
        rows += lines
    _write_list(folder / "words.json", rows)
    return {"text.jsonl": config.text_documents, "words.json": len(rows)}


def _benchmarks(folder: Path, config: BuildConfig, workers: int) -> dict[str, Any]:
    """eval/: the six benchmarks."""
    setting = Setting(folder / "eval", config.seed, config.eval_scale, config.size)
    jobs = [BenchmarkJob(name, setting) for name in WRITERS]
    results = in_order(run_benchmark, jobs, [1] * len(jobs), workers, "eval", "benchmark")
    summaries = dict(zip(WRITERS, results, strict=True))
    write_summary(setting, summaries)
    return {name: summary.to_json() for name, summary in summaries.items()}


def main() -> None:
    """Entry point."""
    default = BuildConfig()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--scenes", type=int, default=default.scenes, help="fine-tuning scenes")
    parser.add_argument("--held-out-scenes", type=int, default=default.held_out_scenes, help="for held_out.json")
    parser.add_argument("--samples-per-scene", type=int, default=default.samples_per_scene)
    parser.add_argument("--pretrain-scenes", type=int, default=default.pretrain_scenes, help="scenes with a caption")
    parser.add_argument("--text-documents", type=int, default=default.text_documents)
    parser.add_argument("--word-scenes", type=int, default=default.word_scenes, help="scenes in words")
    parser.add_argument(
        "--eval-scale", type=float, default=default.eval_scale, help="multiplies the benchmarks' numbers of questions"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies all of these except samples per scene")
    parser.add_argument("--size", type=int, default=default.size, help="side of a picture in pixels")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--workers", type=int, default=2, help="processes")
    arguments = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    out, workers, scale = (arguments.pop(name) for name in ("out", "workers", "scale"))
    manifest = build(out, BuildConfig(**arguments).scaled(scale), workers)
    log.info("%s: %s in %s s", out, json.dumps(manifest["counts"]), manifest["seconds"])


if __name__ == "__main__":
    run_cli(main)
