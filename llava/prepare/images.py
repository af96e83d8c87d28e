"""Check the images of streamed rows in several processes, each image once."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from llava.data.check.report import MISSING_IMAGE, UNREADABLE_IMAGE
from llava.data.images import verify_image
from llava.errors import InputError
from llava.prepare.rows import Converted

EXIST, OPEN = "exist", "open"
ROWS_PER_BATCH = 128
Bad = tuple[str, str, str]


@dataclass
class ImageChecker:
    """Finds images that are missing or unreadable.

    Attributes:
        folder: Folder that image paths are relative to.
        mode: ``exist`` checks only that the file exists, ``open`` reads it completely.
        workers: Number of processes (threads for ``exist``); 0 checks in this process.
        bad: Map from the path of every bad image to (kind of finding, detail), in order of appearance.
        distinct: Number of different images checked.
    """

    folder: Path
    mode: str = OPEN
    workers: int = 0
    bad: dict[str, tuple[str, str]] = field(default_factory=dict)
    distinct: int = 0
    _seen: set[int] = field(default_factory=set)

    def check(self, rows: Iterable[Converted]) -> Iterator[Converted]:
        """Yield the same rows in the same order, each after its images were checked."""
        for batch, found in self._results(iter(rows)):
            for path, kind, detail in found:
                self.bad[path] = (kind, detail)
            yield from batch

    def _batches(self, rows: Iterator[Converted]) -> Iterator[tuple[list[Converted], list[str]]]:
        while batch := list(islice(rows, ROWS_PER_BATCH)):
            paths = [path for row in batch for path in row.images if self._is_new(path)]
            self.distinct += len(paths)
            yield batch, paths

    def _is_new(self, path: str) -> bool:
        """Whether ``path`` is new; only its hash is stored."""
        before = len(self._seen)
        self._seen.add(hash(path))
        return len(self._seen) > before

    def _results(self, rows: Iterator[Converted]) -> Iterator[tuple[list[Converted], list[Bad]]]:
        look = find_missing if self.mode == EXIST else find_unreadable
        if self.workers == 0:
            for batch, paths in self._batches(rows):
                yield batch, look(self.folder, paths)
            return
        waiting: deque[tuple[list[Converted], Future[list[Bad]]]] = deque()
        with self._pool() as pool:
            for batch, paths in self._batches(rows):
                waiting.append((batch, pool.submit(look, self.folder, paths)))
                if len(waiting) > 4 * self.workers:
                    yield _finished(waiting)
            while waiting:
                yield _finished(waiting)

    def _pool(self) -> Executor:
        if self.mode == EXIST:
            return ThreadPoolExecutor(self.workers)
        context = get_context("forkserver")
        context.set_forkserver_preload(["llava.prepare.images"])
        return ProcessPoolExecutor(self.workers, mp_context=context)


def _finished(
    waiting: deque[tuple[list[Converted], "Future[list[Bad]]"]],
) -> tuple[list[Converted], list[Bad]]:
    batch, future = waiting.popleft()
    return batch, future.result()


def find_missing(folder: Path, paths: list[str]) -> list[Bad]:
    """``(path, kind, detail)`` of each path that is not a file in ``folder``."""
    return [(path, MISSING_IMAGE, "no such file") for path in paths if not (folder / path).is_file()]


def find_unreadable(folder: Path, paths: list[str]) -> list[Bad]:
    """``(path, kind, detail)`` of each path that is not a complete image in ``folder``."""
    bad = find_missing(folder, paths)
    missing = {path for path, _, _ in bad}
    for path in paths:
        if path in missing:
            continue
        try:
            verify_image(folder / path)
        except InputError as error:
            bad.append((path, UNREADABLE_IMAGE, str(error)))
    return bad
