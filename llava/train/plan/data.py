"""Samples and steps of a run: counted in the data files, or published numbers if the files do not exist yet."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.data.annotations.json_stream import split_paths
from llava.data.annotations.table import Annotations, open_annotations
from llava.prepare.sources import MIXES, Expected
from llava.train.plan.arguments import PlanArguments
from llava.train.plan.batch import ASKED


@dataclass(frozen=True)
class Samples:
    """Number of samples.

    Attributes:
        number: Number in all files; None if a file is missing and unknown.
        missing: Missing files.
        published: Published numbers of these, and their sources.
        entries: Some entries of the files, if none is missing.
    """

    number: int | None
    missing: tuple[Path, ...] = ()
    published: tuple[Expected, ...] = ()
    entries: tuple[dict[str, Any], ...] = ()


def count_samples(data_path: str) -> Samples:
    """Count the samples of one or several annotation files.

    Raises:
        InputError: A file exists but is not an annotation file.
    """
    files = split_paths(data_path)
    missing = tuple(file for file in files if not file.exists())
    if not missing:
        data = open_annotations(data_path)
        return Samples(len(data), entries=tuple(_some(data)))
    number = sum(len(open_annotations(file)) for file in files if file.exists())
    published = [published_rows(file) for file in missing]
    known = tuple(expected for expected in published if expected is not None)
    if len(known) < len(missing):
        return Samples(None, missing, known)
    return Samples(number + sum(expected.rows for expected in known), missing, known)


def published_rows(file: Path) -> Expected | None:
    """The published number of rows of a training set, found by the name of its published or prepared file."""
    for mix in MIXES.values():
        if file.stem == mix.name or any(Path(place).name == file.name for place in mix.places):
            return next((expected for expected in mix.expected if expected.what == ""), None)
    return None


def _some(data: Annotations) -> Iterator[dict[str, Any]]:
    """A limited number of well-formed entries, evenly spread."""
    broken = {index for index, _ in data.problems()}
    for index in range(0, len(data), max(1, len(data) // ASKED)):
        if index not in broken:
            yield data[index]


def steps(samples: int, arguments: PlanArguments) -> int:
    """Optimizer steps of the run."""
    if arguments.max_steps > 0:
        return arguments.max_steps
    rank = math.ceil(samples / arguments.plan_gpus)
    micro = math.ceil(rank / arguments.per_device_train_batch_size)
    return math.ceil(arguments.num_train_epochs * max(1, math.ceil(micro / arguments.gradient_accumulation_steps)))
