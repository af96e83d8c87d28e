"""Read annotation files entry by entry, in bounded memory, with the exact location of errors.

A ``.json`` file contains one list of entries. It is decoded from a window that slides over the file, so even a file of
several gigabytes needs no more memory than its longest entry. A ``.jsonl`` file contains one entry per line.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from llava.errors import InputError

WINDOW_BYTES = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")
_UNSURE_CHARACTERS = 16  # a number, word or escape this close to the window's end may be incomplete

Progress = Callable[[int], Any]


@dataclass(frozen=True)
class Row:
    """One entry of a file.

    Attributes:
        index: Its position in the file, from 0.
        line: The line it begins on, from 1.
        value: The decoded JSON value.
        error: Why it could not be decoded, "" if it could; only for lines of a ``.jsonl`` file.
    """

    index: int
    line: int
    value: Any
    error: str = ""


def iter_rows(path: Path, progress: Progress | None = None, keep_broken: bool = False) -> Iterator[Row]:
    """Yield the entries of a ``.json`` list or a ``.jsonl`` file.

    Args:
        path: The annotation file.
        progress: Called with the number of bytes read since its last call.
        keep_broken: Yield broken lines of a ``.jsonl`` file with their ``error`` instead of raising.

    Raises:
        InputError: The file does not exist, has another ending, is not valid JSON (the message gives file, line, column
            and entry), or is not a list.
    """
    require_annotation_file(path)
    with path.open("rb") as file:
        yield from read_rows(path, file, progress, keep_broken)


def read_rows(path: Path, file: BinaryIO, progress: Progress | None = None, keep_broken: bool = False) -> Iterator[Row]:
    """Like :func:`iter_rows`, from an open file; ``path`` determines the format and is used in messages."""
    if path.suffix == ".jsonl":
        yield from _json_lines(path, file, progress, keep_broken)
    else:
        yield from _Window(path, file, progress).entries()


def require_annotation_file(path: Path) -> None:
    """Raise an ``InputError`` unless ``path`` is an existing ``.json`` or ``.jsonl`` file."""
    if not path.is_file():
        raise InputError(f"annotation file {str(path)!r} does not exist; check --data_path")
    if path.suffix not in (".json", ".jsonl"):
        raise InputError(f"annotation file {str(path)!r} ends in {path.suffix!r}, expected '.json' or '.jsonl'")


def split_paths(path: str | Path) -> list[Path]:
    """The files named by a ``--data_path`` value; an existing file with a comma in its name is a single file."""
    if isinstance(path, Path) or Path(path).is_file():
        return [Path(path)]
    files = [Path(part.strip()) for part in path.split(",") if part.strip()]
    if not files:
        raise InputError("no annotation file given; pass --data_path with a .json or .jsonl file")
    return files


def _json_lines(path: Path, file: BinaryIO, progress: Progress | None, keep_broken: bool) -> Iterator[Row]:
    index = 0
    for number, line in enumerate(file, start=1):
        if progress is not None:
            progress(len(line))
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line.strip():
            continue
        value, error = None, ""
        try:
            value = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as problem:
            error = f"not UTF-8 ({problem.reason} at byte {problem.start} of the line)"
        except (json.JSONDecodeError, RecursionError) as problem:
            error = f"broken JSON ({problem})"
        if error and not keep_broken:
            raise InputError(f"{path}, line {number} (entry {index}): {error}")
        yield Row(index, number, value, error)
        index += 1


class _Window:
    """A part of the file as text, from which the entries of a JSON list are decoded in order."""

    def __init__(self, path: Path, file: BinaryIO, progress: Progress | None):
        self._path, self._file, self._progress = path, file, progress
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()
        self._text = ""
        self._at = 0  # position in the text of the next character to decode
        self._counted = 0  # position up to which line ends have been counted
        self._line = 1
        self._line_start = 0  # position where the current line begins (negative: before the window)
        self._index = 0
        self._at_end = False

    def entries(self) -> Iterator[Row]:
        opening = self._next_character()
        if opening != "[":
            found = repr(opening) if opening else "nothing"
            raise InputError(
                f"{self._path} begins with {found}, expected '[' and a JSON list of entries; "
                "the name of a file with one entry per line must end in '.jsonl'"
            )
        self._at += 1
        if self._next_character() == "]":
            self._at += 1
        else:
            yield from self._filled_list()
        if self._next_character():
            raise self._broken("more text after the end of the list")

    def _filled_list(self) -> Iterator[Row]:
        while True:
            self._next_character()
            line = self._line_of(self._at)
            yield Row(self._index, line, self._decode_entry())
            mark = self._next_character()
            if mark not in (",", "]"):
                raise self._broken("expected ',' or ']' after the entry" if mark else "the file ends inside the list")
            self._at += 1
            self._index += 1
            if mark == "]":
                return

    def _decode_entry(self) -> Any:
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
                is_whole = self._text[end - 1] in '}]"' or end + _UNSURE_CHARACTERS < len(self._text)
                if is_whole or self._at_end:
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                goes_on = error.msg.startswith("Unterminated") or error.pos > len(self._text) - _UNSURE_CHARACTERS
                if self._at_end or not goes_on:
                    raise self._broken(error.msg, error.pos) from None
            except RecursionError:
                raise self._broken("nested too deeply") from None
            self._read_on(max(WINDOW_BYTES, len(self._text) - self._at))

    def _next_character(self) -> str:
        """Advance to the next character that is not white space; "" at the end of the file."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if self._at_end:
                return ""
            self._read_on(WINDOW_BYTES)

    def _read_on(self, size: int) -> None:
        self._line_of(self._at)
        self._text = self._text[self._at :]
        self._line_start -= self._at
        self._counted = self._at = 0
        data = self._file.read(size)
        self._at_end = not data
        if self._progress is not None:
            self._progress(len(data))
        try:
            self._text += self._utf8.decode(data, final=self._at_end)
        except UnicodeDecodeError as error:
            offset = self._file.tell() - len(data) + max(error.start, 0)
            raise InputError(
                f"{self._path} is not UTF-8 ({error.reason}) near byte {offset}, "
                f"in or after entry {self._index} (line {self._line})"
            ) from None

    def _line_of(self, position: int) -> int:
        """The line number of a position; positions must not decrease between calls."""
        ends = self._text.count("\n", self._counted, position)
        if ends:
            self._line += ends
            self._line_start = self._text.rfind("\n", self._counted, position) + 1
        self._counted = position
        return self._line

    def _broken(self, what: str, position: int | None = None) -> InputError:
        position = self._at if position is None else position
        line = self._line_of(position)
        column = position - self._line_start + 1
        place = f"{self._path}, line {line}, column {column} (entry {self._index})"
        return InputError(f"{place}: broken JSON, {what}")
