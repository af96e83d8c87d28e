"""Annotation files as one random-access table that is not held in memory as Python objects."""

from bisect import bisect_right
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from llava.data.annotations.cache import convert_once
from llava.data.annotations.json_stream import split_paths
from llava.errors import InputError


class Annotations:
    """The memory-mapped entries of one or several annotation files; created by :func:`open_annotations`.

    Processes share the pages of the mapped files; pickling passes file names, not entries.
    """

    def __init__(self, files: list[Path]):
        import datasets  # here, so that the losses and their tests also run where it is not installed

        tables = [convert_once(file) for file in files]
        shards = [datasets.Dataset.from_file(str(shard)) for table in tables for shard in table.shards]
        self.files = files
        self._tables = tables
        self._data = datasets.concatenate_datasets(shards) if len(shards) > 1 else shards[0]
        self._starts = np.cumsum([0, *(table.rows for table in tables)]).tolist()
        self._problem_count = sum(table.problems for table in tables)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One entry: ``id`` (text, "" if it has none), ``image`` (list of paths as written) and ``conversations``
        (list of ``{"from", "value"}``).

        Raises:
            InputError: The entry is malformed; the message names file, entry and line.
            IndexError: ``index`` is out of range.
        """
        row = self._row(index)
        if row["problem"]:
            raise InputError(f"{self._describe(index, row)}: {row['problem']}")
        return {key: row[key] for key in ("id", "image", "conversations")}

    @property
    def lengths(self) -> np.ndarray:
        """Number of words of every entry, int32 ``[len(self)]``: positive with images, negative for text only."""
        return self._data.data.column("length").to_numpy()

    @property
    def image_counts(self) -> np.ndarray:
        """Images of every entry, int32 ``[len(self)]``."""
        return pc.list_value_length(self._data.data.column("image")).to_numpy()

    @property
    def turn_counts(self) -> np.ndarray:
        """Turns of every entry, int32 ``[len(self)]``."""
        return pc.list_value_length(self._data.data.column("conversations")).to_numpy()

    def where(self, index: int) -> str:
        """An entry's location as text: file, entry index (from 0), id and line."""
        return self._describe(index, self._row(index))

    def folder(self, index: int) -> Path:
        """The folder of the annotation file that an entry comes from."""
        return self.files[self._file(index)].parent

    def problems(self) -> list[tuple[int, str]]:
        """``(index, location and reason)`` of every malformed entry; fast if there are none."""
        if not self._problem_count:
            return []
        broken = pc.not_equal(self._data.data.column("problem"), "").to_numpy()
        found = []
        for index in np.flatnonzero(broken).tolist():
            row = self._row(index)
            found.append((index, f"{self._describe(index, row)}: {row['problem']}"))
        return found

    def _row(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"entry {index} of {len(self)}")
        return self._data[index % len(self)]

    def _file(self, index: int) -> int:
        return bisect_right(self._starts, index % len(self)) - 1

    def _describe(self, index: int, row: dict[str, Any]) -> str:
        file = self._file(index)
        entry = index % len(self) - self._starts[file]
        line = row["line"] + self._tables[file].lines_before(entry)
        return f"{self.files[file]}, entry {entry} (id {row['id']!r}, line {line})"


def open_annotations(path: str | Path) -> Annotations:
    """Open annotation files, converting them on first use.

    Args:
        path: A ``.json`` (list) or ``.jsonl`` file, or several separated by commas.

    Raises:
        InputError: A file is missing, empty, or not valid JSON.
    """
    return Annotations(split_paths(path))
