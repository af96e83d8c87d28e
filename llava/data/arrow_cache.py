"""Annotation files converted once to Arrow tables on disk, which every process then maps into memory."""

import gc
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock
from tqdm import tqdm

from llava.data.entry import parse_entry
from llava.data.json_stream import iter_rows, require_annotation_file
from llava.errors import InputError

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
"""Part of the cache key: raise it when the columns or the rules of conversion change."""
ROWS_PER_BATCH = 1_000
ROWS_PER_SHARD = 200_000

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
        with (
            tqdm(total=size, unit="B", unit_scale=True, desc=f"reading {path.name}", disable=None) as bar,
            _without_garbage_collection(),
        ):
            meta = _write_shards(_batches(path, bar), work)
        if not meta["rows"]:
            raise InputError(f"annotation file {str(path)!r} has no entries")
        (work / "meta.json").write_text(json.dumps({"source": str(path.resolve()), **meta}, indent=1))
        work.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    logger.info("converted %s: %d entries, cached in %s", path, meta["rows"], target)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Decoded JSON has no cycles; looking for some takes a fifth of the time of a conversion."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _batches(path: Path, bar: tqdm) -> Iterator[pa.RecordBatch]:
    rows = iter_rows(path, bar.update)
    while batch := list(islice(rows, ROWS_PER_BATCH)):
        entries = [parse_entry(row.value) for row in batch]
        columns = {
            name: [getattr(entry, name) for entry in entries]
            for name in ("id", "image", "conversations", "length", "problem")
        }
        places = {"row": [row.index for row in batch], "line": [row.line for row in batch]}
        yield pa.RecordBatch.from_pydict({**columns, **places}, schema=SCHEMA)


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
            problems += pc.sum(pc.not_equal(batch.column("problem"), "")).as_py()
    finally:
        if writer is not None:
            writer.close()
    return {"shards": shards, "rows": rows, "problems": problems}
