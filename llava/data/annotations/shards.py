"""Write the entries of an annotation file, or of a part of it, as Arrow shards.

This is also the program that converts one part of a large file in a worker process:
``python -m llava.data.annotations.shards FILE FOLDER PART``. Do not import slow modules here.
"""

import gc
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from llava.data.annotations.entry import parse_entry
from llava.data.annotations.json_stream import Progress, Row, read_rows
from llava.data.annotations.parts import Part, PartReader

ROWS_PER_BATCH = 1_000
ROWS_PER_SHARD = 200_000
BYTES_PER_REPORT = 1 << 20

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "image": pa.list_(pa.string()),
        "conversations": pa.list_(pa.struct({"from": pa.string(), "value": pa.string()})),
        "length": pa.int32(),
        "problem": pa.string(),
        "line": pa.int64(),
    }
)


def convert_part(path: Path, part: Part, folder: Path, progress: Progress) -> dict[str, Any]:
    """Write the entries of a part into the new ``folder``; stored line numbers count from the beginning of the part.

    Returns:
        ``shards`` (file names relative to the parent of ``folder``), ``rows``, ``problems`` (number of unusable rows)
        and ``lines`` (number of line ends in the part).

    Raises:
        InputError: The part is not valid JSON.
    """
    folder.mkdir()
    reader = PartReader(path, part)
    with io.BufferedReader(reader) as file, _without_garbage_collection():
        meta = _write_shards(_batches(read_rows(path, file, progress)), folder)
    return {**meta, "lines": reader.lines}


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Disable garbage collection: decoded JSON has no reference cycles, and searching for them would take a fifth of
    the conversion time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _batches(rows: Iterator[Row]) -> Iterator[pa.RecordBatch]:
    while batch := list(islice(rows, ROWS_PER_BATCH)):
        entries = [parse_entry(row.value) for row in batch]
        columns = {
            name: [getattr(entry, name) for entry in entries]
            for name in ("id", "image", "conversations", "length", "problem")
        }
        yield pa.RecordBatch.from_pydict({**columns, "line": [row.line for row in batch]}, schema=SCHEMA)


def _write_shards(batches: Iterator[pa.RecordBatch], folder: Path) -> dict[str, Any]:
    shards: list[str] = []
    rows = problems = rows_in_shard = 0
    writer: pa.RecordBatchStreamWriter | None = None
    try:
        for batch in batches:
            if writer is None or rows_in_shard + len(batch) > ROWS_PER_SHARD:
                if writer is not None:
                    writer.close()
                shards.append(f"{folder.name}/{len(shards):05d}.arrow")
                writer = pa.ipc.new_stream(str(folder.parent / shards[-1]), SCHEMA)
                rows_in_shard = 0
            writer.write_batch(batch)
            rows_in_shard += len(batch)
            rows += len(batch)
            problems += pc.sum(pc.not_equal(batch.column("problem"), "")).as_py()
    finally:
        if writer is not None:
            writer.close()
    return {"shards": shards, "rows": rows, "problems": problems}


def _reporter() -> Progress:
    """Report the number of bytes read on standard output, one number per line; if the parent process is gone, the
    broken pipe ends this one."""
    waiting = 0

    def report(count: int) -> None:
        nonlocal waiting
        waiting += count
        if waiting >= BYTES_PER_REPORT:
            os.write(sys.stdout.fileno(), f"{waiting}\n".encode())
            waiting = 0

    return report


def main() -> None:
    """Convert one part; ``meta.json``, the last file written to the folder, describes the result."""
    path, folder, part = sys.argv[1:]
    meta = convert_part(Path(path), json.loads(part), Path(folder), _reporter())
    (Path(folder) / "meta.json").write_text(json.dumps(meta))


if __name__ == "__main__":
    main()
