"""Annotation files converted once to Arrow tables on disk, which every process then maps into memory."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock
from tqdm import tqdm

from llava.data.entry import parse_entry
from llava.data.json_stream import Row, iter_rows, require_annotation_file
from llava.errors import InputError

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
"""Part of the cache key: raise it when the columns or the rules of conversion change."""
ROWS_PER_BATCH = 1_000
ROWS_PER_SHARD = 200_000
PARALLEL_BYTES = 64 << 20
"""Files of at least this size are converted by several processes, which take a second to start."""
MOST_PROCESSES = 8
"""More would wait for the one that reads."""

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "image": pa.list_(pa.string()),
        "conversations": pa.list_(pa.struct({"from": pa.string(), "value": pa.string()})),
        "length": pa.int32(),
        "problem": pa.string(),
        "row": pa.int64(),
        "line": pa.int64(),
    }
)


@dataclass(frozen=True)
class ArrowTables:
    """A converted file: its shards, how many entries it has and how many of them are unusable."""

    shards: list[Path]
    rows: int
    problems: int


def convert_once(path: Path) -> ArrowTables:
    """The Arrow tables of an annotation file, converted now unless that was done before.

    The cache is keyed by the file's path, size and time of change. It lies in ``$LLAVA_CACHE``, else in the
    cache of ``datasets`` (``$HF_DATASETS_CACHE``), else beside the file, else in the temporary folder: the
    first of these that can be written to. Processes that ask at the same time wait for the one that converts.

    Raises:
        InputError: the file is missing, broken or empty.
    """
    require_annotation_file(path)
    status = path.stat()
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{FORMAT_VERSION}"
    name = f"{path.stem[:60]}-{hashlib.sha256(key.encode()).hexdigest()[:20]}"
    target = _writable_root(path, name) / name
    with FileLock(f"{target}.lock"):
        if not (target / "meta.json").is_file():
            _convert(path, target, status.st_size)
    meta = json.loads((target / "meta.json").read_text())
    return ArrowTables([target / shard for shard in meta["shards"]], meta["rows"], meta["problems"])


def _writable_root(path: Path, name: str) -> Path:
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
        f"no folder for the annotation cache can be written to; tried {', '.join(map(str, candidates))}; "
        "set LLAVA_CACHE"
    )


def _convert(path: Path, target: Path, size: int) -> None:
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{target.name}.part-"))
    try:
        with tqdm(total=size, unit="B", unit_scale=True, desc=f"reading {path.name}", disable=None) as bar:
            meta = _write_shards(_record_batches(_batches(path, bar), _processes(size)), work)
        if not meta["rows"]:
            raise InputError(f"annotation file {str(path)!r} has no entries")
        (work / "meta.json").write_text(json.dumps({"source": str(path.resolve()), **meta}, indent=1))
        work.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    logger.info("converted %s: %d entries, cached in %s", path, meta["rows"], target)


def _batches(path: Path, bar: tqdm) -> Iterator[list[Row]]:
    rows = iter_rows(path, bar.update)
    while batch := list(islice(rows, ROWS_PER_BATCH)):
        yield batch


def _processes(size: int) -> int:
    """How many processes convert a file of ``size`` bytes beside the one that reads; 0 for the reading one alone."""
    return min(MOST_PROCESSES, os.cpu_count() or 1) if size >= PARALLEL_BYTES else 0


def _record_batches(batches: Iterator[list[Row]], processes: int) -> Iterator[pa.RecordBatch]:
    """The batches in stored form, in their order; a few at a time are under way in other processes."""
    if not processes:
        yield from map(_record_batch, batches)
        return
    under_way: deque[Future[pa.RecordBatch]] = deque()
    with ProcessPoolExecutor(processes, mp_context=get_context("forkserver")) as pool:
        for batch in batches:
            under_way.append(pool.submit(_record_batch, batch))
            if len(under_way) > 2 * processes:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _record_batch(rows: list[Row]) -> pa.RecordBatch:
    """Decoded rows in stored form."""
    stored = []
    for row in rows:
        entry = vars(parse_entry(row.value))
        columns = {name: entry[name] for name in ("id", "image", "conversations", "length", "problem")}
        stored.append({**columns, "row": row.index, "line": row.line})
    return pa.RecordBatch.from_pylist(stored, schema=SCHEMA)


def _write_shards(batches: Iterator[pa.RecordBatch], folder: Path) -> dict[str, Any]:
    shards: list[str] = []
    rows = problems = rows_in_shard = 0
    writer: pa.RecordBatchStreamWriter | None = None
    try:
        for batch in batches:
            if writer is None or rows_in_shard + len(batch) > ROWS_PER_SHARD:
                if writer is not None:
                    writer.close()
                shards.append(f"part-{len(shards):05d}.arrow")
                writer = pa.ipc.new_stream(str(folder / shards[-1]), SCHEMA)
                rows_in_shard = 0
            writer.write_batch(batch)
            rows_in_shard += len(batch)
            rows += len(batch)
            problems += pc.sum(pc.not_equal(batch["problem"], "")).as_py()
    finally:
        if writer is not None:
            writer.close()
    return {"shards": shards, "rows": rows, "problems": problems}
