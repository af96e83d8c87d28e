"""Write a list of entries to a file that appears only when it is complete."""

import hashlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from llava.errors import InputError


class EntryWriter:
    """Writes entries one per line, as a JSON list (``.json``) or as JSON lines (``.jsonl``).

    They are written to ``NAME.part``, which replaces ``NAME`` when the ``with`` block ends without an exception;
    otherwise it is removed and an earlier ``NAME`` is unchanged.

    Attributes:
        rows: Number of entries written.
        bytes: Size of the file.
        sha256: Checksum of the file as hexadecimal text; set when the ``with`` block ends.

    Raises:
        InputError: The file has another ending, cannot be written, or another process is writing it.
    """

    def __init__(self, path: Path):
        if path.suffix not in (".json", ".jsonl"):
            raise InputError(f"output {str(path)!r} ends in {path.suffix!r}, expected '.json' or '.jsonl'")
        self.path = path
        self.rows = self.bytes = 0
        self.sha256 = ""
        self._part = path.with_name(f"{path.name}.part")
        self._digest = hashlib.sha256()
        self._is_list = path.suffix == ".json"
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
        self._file: BinaryIO

    def __enter__(self) -> "EntryWriter":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise InputError(f"another process is writing {self.path}; wait for it or stop it") from None
        self._file = self._part.open("wb", buffering=1 << 20)
        if self._is_list:
            self._put("[")
        return self

    def write(self, entry: dict[str, Any]) -> None:
        """Append one entry."""
        separator = (",\n" if self.rows else "\n") if self._is_list else ""
        self._put(separator + json.dumps(entry, ensure_ascii=False) + ("" if self._is_list else "\n"))
        self.rows += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if self._is_list:
                    self._put("\n]\n")
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
            if kind is None:
                os.replace(self._part, self.path)
                self.sha256 = self._digest.hexdigest()
        finally:
            self._part.unlink(missing_ok=True)
            self._lock.release()

    def _put(self, text: str) -> None:
        data = text.encode("utf-8")
        self._digest.update(data)
        try:
            self.bytes += self._file.write(data)
        except OSError as error:
            raise InputError(f"{self._part} cannot be written: {error}") from None
