"""Counts for one mix while it is built, and their comparison with published numbers."""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np

from llava.prepare.image_folders import folder_of
from llava.prepare.rows import Converted
from llava.prepare.sources import Expected

TEXT_ONLY = "text only"
EXAMPLES_KEPT = 5


@dataclass
class Tally:
    """Rows read, kept, changed and dropped; memory grows by 16 bytes per row.

    Attributes:
        read: Number of rows in the file.
        kept: Number of rows written.
        text_only: Number of written rows without an image.
        dropped: Numbers of rows not written, by reason.
        changed: Numbers of changed rows, by kind of change.
        examples: Locations of the first rows dropped for each reason.
        folders: Numbers of usable rows by the folder of their first image, before sampling.
    """

    read: int = 0
    kept: int = 0
    text_only: int = 0
    dropped: Counter = field(default_factory=Counter)
    changed: Counter = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    folders: Counter = field(default_factory=Counter)
    _ids: array = field(default_factory=lambda: array("q"))
    _contents: array = field(default_factory=lambda: array("q"))

    def drop(self, reason: str, where: str, detail: str = "") -> None:
        """Count a row that is not written."""
        self.dropped[reason] += 1
        kept = self.examples.setdefault(reason, [])
        if len(kept) < EXAMPLES_KEPT:
            kept.append(f"{where}: {detail}" if detail else where)

    def usable(self, row: Converted) -> None:
        """Count a usable row."""
        self.folders[folder_of(row.images[0]) if row.images else TEXT_ONLY] += 1
        self.changed.update(row.changes)

    def keep(self, row: Converted, content: int) -> None:
        """Count a written row; ``content`` is its :func:`content_key`."""
        self.kept += 1
        self.text_only += not row.images
        self._ids.append(hash(row.entry["id"]) if row.entry else 0)
        self._contents.append(content)

    @property
    def repeated_ids(self) -> int:
        """Number of written rows that repeat an earlier id."""
        return len(self._ids) - len(np.unique(np.asarray(self._ids)))

    @property
    def repeated_rows(self) -> int:
        """Number of written rows that repeat earlier images and conversations."""
        return len(self._contents) - len(np.unique(np.asarray(self._contents)))

    def compare(self, expected: tuple[Expected, ...]) -> list[dict[str, Any]]:
        """Compare the published numbers of rows with those found."""
        return [
            {
                "what": figure.what or "all rows",
                "expected": figure.rows,
                "rounded_to": figure.unit,
                "found": self.folders[figure.what] if figure.what else self.read,
                "agrees": figure.agrees(self.folders[figure.what] if figure.what else self.read),
                "stated_by": figure.stated_by,
            }
            for figure in expected
        ]


def content_key(row: Converted) -> int:
    """64-bit hash of a row's images and conversations, the same in every process."""
    digest = blake2b(digest_size=8)
    turns = row.entry["conversations"] if row.entry else []
    for text in (*row.images, *(part for turn in turns for part in (turn["from"], turn["value"]))):
        digest.update(text.encode("utf-8") + b"\0")
    return int.from_bytes(digest.digest(), "little", signed=True)
