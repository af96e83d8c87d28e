"""Downloads that can be resumed.

The data is written to ``NAME.part`` and the server's description of the file (length, version) to ``NAME.part.json``.
A later run requests the rest of the same version, or starts over if the file has changed.
"""

import hashlib
import http.client
import json
import logging
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from llava.errors import InputError
from llava.files import write_json

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
SILENCE_SECONDS = 60
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_BROKEN_OFF = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


class _WrongPart(Exception):
    """The data downloaded so far does not belong to the server's current file."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps the checksum that the hub sends with the first one."""

    def __init__(self) -> None:
        self.linked = ""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        self.linked = self.linked or headers.get("X-Linked-Etag", "").strip('"')
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, target: Path, sha256: str | None = None, tries: int = 6, pause: float = 1.0) -> None:
    """Download a file unless it exists, resuming an earlier attempt.

    Args:
        url: The file's address.
        target: Path of the downloaded file; it appears only when it is complete and its checksum is correct.
        sha256: Expected checksum; by default the one that the hub sends, if any.
        tries: Number of consecutive attempts without any data before giving up.
        pause: Seconds before the second attempt, doubled for each further one.

    Raises:
        InputError: The server refuses the request, the connection keeps failing (the data so far is kept), the disk is
            too small, the checksum is wrong, or another process is downloading the same file.
    """
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{url!r} is not a web address; check HF_ENDPOINT, which begins with https://")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(target.with_name(f".{target.name}.lock"), timeout=0):
            if not target.exists():
                _Part(url, target).complete(sha256, tries, pause)
    except Timeout:
        raise InputError(f"another process is downloading {target}; wait for it") from None


def sha256_of(path: Path, progress: Callable[[int], Any] | None = None) -> str:
    """The SHA-256 of a file as hexadecimal text."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            if progress is not None:
                progress(len(chunk))
    return digest.hexdigest()


class _Part:
    """A file that is being downloaded."""

    def __init__(self, url: str, target: Path):
        self.url, self.target = url, target
        self.file = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")

    def complete(self, sha256: str | None, tries: int, pause: float) -> None:
        failures, problem = 0, ""
        with tqdm(unit="B", unit_scale=True, desc=f"downloading {self.target.name}", disable=None) as bar:
            while failures < tries:
                if failures:
                    time.sleep(pause * 2 ** (failures - 1))
                before = self.size()
                try:
                    self._fetch(bar)
                    break
                except _WrongPart:
                    self.remove()
                    problem = "the file on the server has changed"
                except urllib.error.HTTPError as error:
                    if error.code not in _BUSY:
                        raise self._refused(error) from None
                    problem = f"{error.code} {error.reason}"
                except _BROKEN_OFF as error:
                    problem = str(error) or repr(error)
                failures = 1 if self.size() > before else failures + 1
            else:
                raise InputError(
                    f"the download of {self.url} failed {tries} times in a row ({problem}); {self.size():,} bytes are "
                    f"kept in {self.file}: run the same command again to resume"
                )
        self._verify(sha256 or self.known().get("sha256"))
        os.replace(self.file, self.target)
        self.note.unlink(missing_ok=True)

    def size(self) -> int:
        """Number of bytes downloaded so far."""
        return self.file.stat().st_size if self.file.exists() else 0

    def known(self) -> dict[str, Any]:
        """The server's description of the file; {} if there is none for this URL."""
        try:
            note = json.loads(self.note.read_text())
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) and note.get("url") == self.url else {}

    def remove(self) -> None:
        """Discard the data downloaded so far."""
        if self.file.exists():
            logger.warning("%s belongs to another version of the file; starting over", self.file)
        self.file.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _fetch(self, bar: tqdm) -> None:
        known, have = self.known(), self.size()
        if have and not known.get("bytes"):
            self.remove()  # of an unknown version
            have = 0
        if have and have == known["bytes"]:
            return
        headers = {"Accept-Encoding": "identity", "User-Agent": "llava-data-prepare"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if known.get("etag"):
                headers["If-Range"] = known["etag"]
        redirects = _Redirects()
        try:
            request = urllib.request.Request(self.url, headers=headers)
            answer = urllib.request.build_opener(redirects).open(request, timeout=SILENCE_SECONDS)
        except urllib.error.HTTPError as error:
            raise (_WrongPart() if error.code == 416 and have else error) from None
        with answer:
            if answer.status == 206:
                self._continued(answer.headers, have, known)
            else:
                have = 0
                self._begun(answer.headers, redirects.linked)
            total = self.known()["bytes"]
            bar.reset(total=total)
            bar.update(have)
            self._copy(answer, have, total, bar)

    def _begun(self, headers: Any, linked: str) -> None:
        length, etag = headers.get("Content-Length"), headers.get("ETag", "")
        note = {
            "url": self.url,
            "bytes": int(length) if length else None,
            "etag": "" if etag.startswith("W/") else etag,
            "sha256": linked if len(linked) == 64 else None,
        }
        self.remove()
        write_json(self.note, note, indent=None)

    def _continued(self, headers: Any, have: int, known: dict[str, Any]) -> None:
        if headers.get("Content-Range") != f"bytes {have}-{known['bytes'] - 1}/{known['bytes']}":
            raise _WrongPart

    def _copy(self, answer: Any, have: int, total: int | None, bar: tqdm) -> None:
        free = shutil.disk_usage(self.target.parent).free
        if total is not None and free < total - have:
            raise InputError(
                f"{self.target.name} needs {total - have:,} more bytes, but {self.target.parent} has {free:,} free; "
                "free some space or choose another --data folder"
            )
        with self.file.open("ab", buffering=0) as file:
            while chunk := answer.read1(CHUNK_BYTES):
                try:
                    file.write(chunk)
                except OSError as error:
                    raise InputError(f"{self.file} cannot be written: {error}") from None
                have += len(chunk)
                bar.update(len(chunk))
        if total is not None and have != total:
            raise ConnectionError(f"the server closed the connection after {have:,} of {total:,} bytes")

    def _verify(self, sha256: str | None) -> None:
        if sha256 is None:
            return
        with tqdm(total=self.size(), unit="B", unit_scale=True, desc="verifying", disable=None, leave=False) as bar:
            found = sha256_of(self.file, bar.update)
        if found != sha256:
            self.file.unlink()
            self.note.unlink(missing_ok=True)
            raise InputError(
                f"{self.url} has SHA-256 {found}, expected {sha256}; the download was removed. Run the command again; "
                f"if that does not help, the publisher may have replaced the file: download it by hand to "
                f"{self.target} and pass --any_checksum"
            )

    def _refused(self, error: urllib.error.HTTPError) -> InputError:
        reason = "it may need a login or accepted terms" if error.code in (401, 403) else "it may have moved"
        return InputError(
            f"{self.url} answered {error.code} {error.reason} ({reason}); download it with a browser and put it at "
            f"{self.target}"
        )
