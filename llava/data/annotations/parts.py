"""Split an annotation file into byte ranges that several processes can read at the same time.

A part begins at the byte that separates two entries: the comma in a ``.json`` list, the line end in a ``.jsonl``
file. :class:`PartReader` presents a part of a list as a complete list: ``[`` replaces the comma, and a ``]`` is
appended.

The commas are guesses that decoding the parts verifies. If a comma is inside an entry or a text, that entry is still
open at the end of the previous part, and one ``]`` cannot close both the entry and the list. The first part starts
where the file does, so all parts are valid lists only if every comma is between two entries.
"""

import io
import json
import re
import sys
from pathlib import Path
from typing import Any, BinaryIO

SEARCH_BYTES = 1 << 20
_BETWEEN_OBJECTS = re.compile(r"}[ \t\r\n]*(,)[ \t\r\n]*(?={)")

Part = tuple[int, int | None]
"""The first byte and the byte after the last; None means the end of the file."""
WHOLE_FILE: Part = (0, None)


def split_file(path: Path, count: int) -> list[Part]:
    """At most ``count`` parts of about the same size, in order; fewer if too few separators are found."""
    size = path.stat().st_size
    with path.open("rb") as file:
        found = [_find_separator(file, size * number // count, path.suffix) for number in range(1, count)]
    starts = sorted({0, *(place for place in found if place)})
    return list(zip(starts, [*starts[1:], None], strict=True))


def _find_separator(file: BinaryIO, start: int, suffix: str) -> int | None:
    file.seek(start)
    data = file.read(SEARCH_BYTES)
    at = data.find(b"\n") if suffix == ".jsonl" else _find_comma(data.decode("latin-1"))
    return start + at if at >= 0 else None


def _find_comma(text: str) -> int:
    """Position of the first comma before an object with ``conversations`` (the turns of a conversation are objects
    too); -1 if there is none.

    ``text`` is decoded as Latin-1, which maps every byte to one character: positions are byte offsets, and a character
    split at the start does no harm.
    """
    decoder = json.JSONDecoder()
    for match in _BETWEEN_OBJECTS.finditer(text):
        try:
            if "conversations" in decoder.raw_decode(text, match.end())[0]:
                return match.start(1)
        except (ValueError, RecursionError):
            continue  # inside a text, or cut off at the end of the search
    return -1


class PartReader(io.RawIOBase):
    """The bytes of one part.

    Attributes:
        lines: Number of line ends read so far.
    """

    def __init__(self, path: Path, part: Part):
        start, end = part
        is_list = path.suffix == ".json"
        self.lines = 0
        self._opening = b"[" if is_list and start else b""
        self._closing = b"]" if is_list and end is not None else b""
        self._left = (sys.maxsize if end is None else end) - start
        self._file = path.open("rb", buffering=0)
        self._file.seek(start)

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(len(buffer), self._left))
        self._left -= len(data)
        self.lines += data.count(b"\n")
        if data and self._opening:
            data, self._opening = self._opening + data[1:], b""
        elif not data:
            data, self._closing = self._closing, b""
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
