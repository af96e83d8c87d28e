"""Conversion of published rows to LLaVA's format, with the same rules as in training."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import HUMAN
from llava.data.annotations.entry import EntryError, parse_entry
from llava.data.annotations.json_stream import Progress, Row, iter_rows
from llava.data.check.report import BROKEN_JSON
from llava.errors import InputError

OUTSIDE_PATH = "image path outside the folder"
URL_IMAGE = "image is a URL"
ROWS_PER_BATCH = 1_000


@dataclass
class Converted:
    """A converted row.

    Attributes:
        entry: ``id``, ``image`` (a path or a list of paths, missing for text only) and ``conversations``; None if the
            row cannot be used.
        images: Its image paths, relative to the data folder.
        reason: Why it cannot be used, as a category; "" if it can.
        detail: The full reason.
        changes: What was changed, other than the prefix of image paths.
        where: Its location in the file, as text.
        content: Key of its content, once computed.
    """

    entry: dict[str, Any] | None = None
    images: list[str] = field(default_factory=list)
    reason: str = ""
    detail: str = ""
    changes: list[str] = field(default_factory=list)
    where: str = ""
    content: int = 0

    def move_images(self, old: str, new: str) -> None:
        """Change image paths from folder ``old`` to folder ``new``."""
        if self.entry is not None and any(path.startswith(f"{old}/") for path in self.images):
            self.images = [new + path[len(old) :] if path.startswith(f"{old}/") else path for path in self.images]
            self.entry["image"] = self.images[0] if len(self.images) == 1 else self.images


def read_rows(path: Path, progress: Progress | None = None) -> Iterator[Row]:
    """The rows of a ``.json`` list, a ``.jsonl`` or a ``.parquet`` file, in bounded memory.

    Raises:
        InputError: The file is missing, broken, or has another format.
    """
    if path.suffix == ".parquet":
        yield from _parquet_rows(path, progress)
        return
    try:
        yield from iter_rows(path, progress, keep_broken=True)
    except InputError as error:
        raise InputError(
            f"{error}. If the file ends too early, its download was incomplete: remove it and download it again "
            "(--download)"
        ) from None


def _parquet_rows(path: Path, progress: Progress | None) -> Iterator[Row]:
    if not path.is_file():
        raise InputError(f"{str(path)!r} does not exist")
    try:
        with pq.ParquetFile(path) as file:
            columns = file.schema_arrow
            if "image" in columns.names and pa.types.is_struct(columns.field("image").type):
                raise InputError(
                    f"{path} has image data in its column 'image', expected paths; write the images to files "
                    "and put their paths into the column"
                )
            share = path.stat().st_size / max(file.metadata.num_rows, 1)
            index = 0
            for batch in file.iter_batches(batch_size=ROWS_PER_BATCH):
                for value in batch.to_pylist():
                    yield Row(index, index + 1, value)
                    index += 1
                if progress is not None:
                    progress(round(share * batch.num_rows))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}; download it again") from None


def convert(row: Row, mix: str, prefix: str = "") -> Converted:
    """Convert one row to LLaVA's format.

    Numeric ids become text, and missing ids are made from mix and position. Empty ``image`` values are removed. Image
    paths get forward slashes and the prefix. A row with one image and no ``<image>`` marker gets one in front of its
    first question.

    Args:
        row: A row as read.
        mix: The mix's name, used for made ids.
        prefix: Prefix for image paths that do not begin with it.
    """
    result = Converted()
    if row.error:
        return Converted(reason=BROKEN_JSON, detail=row.error)
    raw = dict(row.value) if isinstance(row.value, dict) else row.value
    try:
        if isinstance(raw, dict):
            _fix_id(raw, f"{mix}-{row.index}", result)
            _fix_images(raw, prefix, result)
            _fix_marker(raw, result)
    except EntryError as error:
        return Converted(reason=error.kind, detail=str(error))
    entry = parse_entry(raw)
    if entry.problem:
        return Converted(reason=entry.problem_kind, detail=entry.problem)
    result.images = entry.image
    image: dict[str, Any] = {"image": entry.image[0] if len(entry.image) == 1 else entry.image} if entry.image else {}
    result.entry = {"id": entry.id, **image, "conversations": entry.conversations}
    return result


def _fix_id(raw: dict[str, Any], made: str, result: Converted) -> None:
    found = raw.get("id")
    if found is None or found == "":
        raw["id"] = made
        result.changes.append("id made")
    elif not isinstance(found, str):
        raw["id"] = str(found)
        result.changes.append("id turned into text")


def _fix_images(raw: dict[str, Any], prefix: str, result: Converted) -> None:
    value = raw.get("image")
    if value is None or value == "" or value == []:
        if raw.pop("image", None) is not None:
            result.changes.append("empty image left out")
        return
    paths = value if isinstance(value, list) else [value]
    raw["image"] = [_path(path, prefix) if isinstance(path, str) and path else path for path in paths]


def _path(path: str, prefix: str) -> str:
    if "://" in path:
        raise EntryError(URL_IMAGE, f"image {path!r} is a URL, expected a path")
    tidy = path.replace("\\", "/")
    parts = [part for part in tidy.split("/") if part not in ("", ".")]
    if tidy.startswith("/") or ".." in parts or (parts and parts[0].endswith(":")):
        raise EntryError(OUTSIDE_PATH, f"image {path!r} is outside the image folder")
    tidy = "/".join(parts)
    return tidy if not prefix or tidy.startswith(f"{prefix}/") else f"{prefix}/{tidy}"


def _fix_marker(raw: dict[str, Any], result: Converted) -> None:
    turns, images = raw.get("conversations"), raw.get("image")
    if not isinstance(turns, list) or not images or len(images) != 1:
        return
    if not all(isinstance(turn, dict) and isinstance(turn.get("value"), str) for turn in turns):
        return
    question = next((turn for turn in turns if turn.get("from") == HUMAN), None)
    if question is None or any(DEFAULT_IMAGE_TOKEN in turn["value"] for turn in turns):
        return
    first = turns.index(question)
    marked = {**question, "value": f"{DEFAULT_IMAGE_TOKEN}\n{question['value']}"}
    raw["conversations"] = [*turns[:first], marked, *turns[first + 1 :]]
    result.changes.append("<image> marker added")
