"""The parts of a build that run in worker processes: pictures with their annotations, and text."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from playground.mini.annotations import finetuning_samples, pretraining_samples
from playground.mini.corpus import documents
from playground.mini.layout import Scene
from playground.mini.scenes import Split, make_scene, render
from playground.mini.tower import labels
from playground.mini.word_pictures import word_samples

CHUNK = 200

J = TypeVar("J")
R = TypeVar("R")


@dataclass(frozen=True)
class PictureJob:
    """A range of scenes to draw and annotate: ``start`` to ``stop`` of a split."""

    folder: Path
    seed: int
    split: Split
    start: int
    stop: int
    samples_per_scene: int
    size: int


@dataclass(frozen=True)
class PictureRows:
    """Output of a job as JSON lines: conversations, and labels for the tower."""

    samples: list[str]
    tower: list[str]


@dataclass(frozen=True)
class TextJob:
    """A range of documents, or of scenes in words."""

    seed: int
    start: int
    stop: int


def save_picture(scene: Scene, path: Path, size: int) -> None:
    """Draw a scene to a PNG file, with light compression, because time matters more than space here."""
    render(scene, size).save(path, compress_level=1)


def run_pictures(job: PictureJob) -> PictureRows:
    """Draw the scenes of a job and write their annotations."""
    rows = PictureRows([], [])
    for index in range(job.start, job.stop):
        scene = make_scene(job.seed, job.split, index)
        image = f"{job.split}/{index:06d}.png"
        save_picture(scene, job.folder / image, job.size)
        if job.split == "pretrain":
            samples = pretraining_samples(scene, image, f"mini_pt_{index:06d}")
        else:
            kind = "ft" if job.split == "train" else "held_out"
            samples = finetuning_samples(scene, image, f"mini_{kind}_{index:06d}", job.samples_per_scene)
        rows.samples.extend(json.dumps(sample, ensure_ascii=False) for sample in samples)
        rows.tower.append(json.dumps({"image": image, "labels": labels(scene)}, ensure_ascii=False))
    return rows


def run_text(job: TextJob) -> list[str]:
    """The documents of a job as JSON lines."""
    return [json.dumps({"text": text}, ensure_ascii=False) for text in documents(job.seed, job.start, job.stop)]


def run_words(job: TextJob) -> list[str]:
    """The conversations about a job's scenes in words, as JSON."""
    return [json.dumps(sample, ensure_ascii=False) for sample in word_samples(job.seed, job.start, job.stop)]


def chunks(total: int, size: int = CHUNK) -> Iterator[tuple[int, int]]:
    """Ranges (start, stop) that cover ``total`` items."""
    return ((start, min(start + size, total)) for start in range(0, total, size))


def spans(jobs: Sequence[PictureJob | TextJob]) -> list[int]:
    """Number of scenes or documents of each job."""
    return [job.stop - job.start for job in jobs]


def in_order(
    function: Callable[[J], R], jobs: list[J], sizes: list[int], workers: int, description: str, unit: str
) -> Iterator[R]:
    """Run jobs in ``workers`` processes with a progress bar; results come in the order of the jobs."""
    with tqdm(total=sum(sizes), desc=description, unit=unit, disable=None) as bar, ProcessPoolExecutor(workers) as pool:
        for size, result in zip(sizes, pool.map(function, jobs), strict=True):
            bar.update(size)
            yield result
