"""Annotation files, converted once to Arrow tables on disk that every process memory-maps."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

from filelock import FileLock
from tqdm import tqdm

from llava.cores import cores
from llava.data.annotations.json_stream import require_annotation_file
from llava.data.annotations.parts import WHOLE_FILE, Part, split_file
from llava.data.annotations.shards import convert_part
from llava.errors import InputError

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2
"""Part of the cache key: increase it when the columns or the conversion rules change."""
BYTES_PER_PROCESS = 32 << 20
"""Minimum number of bytes per process; below it, starting a process costs more than it saves."""
MOST_PROCESSES = 8


@dataclass(frozen=True)
class ArrowTables:
    """A converted file.

    Attributes:
        shards: Paths of its tables, in order.
        rows: Number of entries.
        problems: Number of unusable entries.
        first_rows: Index of the first entry of each separately converted part of the file.
        first_lines: Number of lines before each part; line numbers stored in its shards are relative to this.
    """

    shards: list[Path]
    rows: int
    problems: int
    first_rows: list[int]
    first_lines: list[int]

    def lines_before(self, row: int) -> int:
        """Number of lines to add to the stored line number of an entry."""
        return self.first_lines[bisect_right(self.first_rows, row) - 1]


class WorkerError(RuntimeError):
    """A worker process that converts a part of a file failed."""


def convert_once(path: Path) -> ArrowTables:
    """The Arrow tables of an annotation file, which is converted unless it is in the cache.

    The cache key is the file's path, size and modification time. The cache folder is the first writable one of
    ``$LLAVA_CACHE``, the cache of ``datasets`` (``$HF_DATASETS_CACHE``), the file's own folder and the temporary
    folder. If several processes need the same file, one converts it and the others wait.

    Raises:
        InputError: The file is missing, broken or empty.
    """
    require_annotation_file(path)
    status = path.stat()
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{FORMAT_VERSION}"
    name = f"{path.stem[:60]}-{hashlib.sha256(key.encode()).hexdigest()[:20]}"
    target = _writable_root(path, name) / name
    with FileLock(f"{target}.lock"):
        if not (target / "meta.json").is_file():
            _convert(path, target, status.st_size)
    parts = json.loads((target / "meta.json").read_text())["parts"]
    first_rows, first_lines = (list(accumulate((part[key] for part in parts), initial=0)) for key in ("rows", "lines"))
    return ArrowTables(
        shards=[target / shard for part in parts for shard in part["shards"]],
        rows=first_rows[-1],
        problems=sum(part["problems"] for part in parts),
        first_rows=first_rows,
        first_lines=first_lines,
    )


def _writable_root(path: Path, name: str) -> Path:
    import datasets  # here, so that the losses and their tests also run where it is not installed

    configured = os.environ.get("LLAVA_CACHE")
    candidates = [
        *([Path(configured)] if configured else []),
        Path(datasets.config.HF_DATASETS_CACHE) / "llava_annotations",
        path.resolve().parent / ".llava_cache",
        Path(tempfile.gettempdir()) / "llava_annotations",
    ]
    for root in candidates:
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=root):
                return root
        except OSError as error:
            logger.debug("no annotation cache in %s: %s", root, error)
    raise InputError(
        f"no folder for the annotation cache is writable; tried {', '.join(map(str, candidates))}; "
        "set LLAVA_CACHE to a writable folder"
    )


def _convert(path: Path, target: Path, size: int) -> None:
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{target.name}.part-"))
    try:
        with tqdm(total=size, unit="B", unit_scale=True, desc=f"reading {path.name}", disable=None) as bar:
            parts = _convert_parts(path, size, work, bar)
        rows = sum(part["rows"] for part in parts)
        if not rows:
            raise InputError(f"annotation file {str(path)!r} has no entries")
        (work / "meta.json").write_text(json.dumps({"source": str(path.resolve()), "parts": parts}, indent=1))
        work.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    logger.info("converted %s: %d entries, cached in %s", path, rows, target)


def _convert_parts(path: Path, size: int, work: Path, bar: tqdm) -> list[dict[str, Any]]:
    """Convert a large file in several processes; a small file, or one for which they fail, in this process."""
    parts = split_file(path, min(cores(), MOST_PROCESSES, size // BYTES_PER_PROCESS))
    if len(parts) > 1:
        try:
            return _convert_in_workers(path, parts, work, bar)
        except (OSError, ValueError, WorkerError) as error:
            logger.warning("converting %s in one process, because several failed: %s", path, error)
            bar.reset()
            for folder in work.iterdir():
                shutil.rmtree(folder)
    return [convert_part(path, WHOLE_FILE, work / "whole", bar.update)]


def _convert_in_workers(path: Path, parts: list[Part], work: Path, bar: tqdm) -> list[dict[str, Any]]:
    """The result of :func:`convert_part` for each part; all worker processes have ended on return.

    All workers write to one pipe, which closes when the last of them ends. A worker that loses the pipe exits.
    """
    folders = [work / f"{number:02d}" for number in range(len(parts))]
    workers: list[subprocess.Popen[bytes]] = []
    reading, writing = os.pipe()
    try:
        with open(reading) as reports, tempfile.TemporaryFile("w+", errors="replace") as errors:
            with open(writing, "wb") as pipe:
                for part, folder in zip(parts, folders, strict=True):
                    workers.append(_start_worker(path, part, folder, pipe, errors))
            for line in reports:
                bar.update(int(line))
                if any(worker.poll() for worker in workers):
                    break
            else:
                for worker in workers:
                    worker.wait()
            if status := next(filter(None, (worker.poll() for worker in workers)), 0):
                errors.seek(0)
                message = errors.read().strip().rpartition("\n")[2]
                raise WorkerError(f"status {status}, {message or 'no message'}")
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return [json.loads((folder / "meta.json").read_text()) for folder in folders]


def _start_worker(path: Path, part: Part, folder: Path, reports: IO[Any], errors: IO[Any]) -> subprocess.Popen[bytes]:
    """A new interpreter with the same search path: unlike a ``multiprocessing`` worker it never runs the main
    script."""
    command = [sys.executable, "-P", "-m", "llava.data.annotations.shards", str(path), str(folder), json.dumps(part)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=reports, stderr=errors, env=environment)
