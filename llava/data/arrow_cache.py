"""Annotation files converted once to Arrow tables on disk, which every process then maps into memory."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
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
        with tqdm(total=size, unit="B", unit_scale=True, desc=f"reading {path.name}", disable=None) as bar:
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


def _batches(path: Path, bar: tqdm) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in iter_rows(path, bar.update):
        entry = vars(parse_entry(row.value))
        columns = {name: entry[name] for name in ("id", "image", "conversations", "length", "problem")}
        batch.append({**columns, "row": row.index, "line": row.line})
        if len(batch) == ROWS_PER_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _write_shards(batches: Iterator[list[dict[str, Any]]], folder: Path) -> dict[str, Any]:
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
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=SCHEMA))
            rows_in_shard += len(batch)
            rows += len(batch)
            problems += sum(bool(row["problem"]) for row in batch)
    finally:
        if writer is not None:
            writer.close()
    return {"shards": shards, "rows": rows, "problems": problems}
