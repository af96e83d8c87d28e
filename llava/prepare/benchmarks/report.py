"""The output of ``llava.prepare benchmarks``."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from llava.prepare.benchmarks.check import State
from llava.prepare.benchmarks.layout import Laid
from llava.prepare.benchmarks.sources import EVAL_ZIP, EVAL_ZIP_PAGE, SOURCES, BenchmarkSource
from llava.prepare.report import table
from llava.prepare.web import web_address


def describe(source: BenchmarkSource, state: State, laid: Laid | None) -> str:
    """A benchmark in a few lines: files present, missing and wrong, and where to get them."""
    rows: list[tuple[str, ...]] = [(item.what, item.state, str(item.path)) for item in state.items]
    lines = [f"{source.name}: {source.title}"]
    for row, item in zip(table(rows), state.items, strict=True):
        lines += [f"  {row}", *(f"      {note}" for note in (item.note, *item.more) if note)]
    lines += [f"  FAILED    {problem}" for problem in (laid.problems if laid else [])]
    return "\n".join(lines)


def closing(root: Path, states: Sequence[tuple[BenchmarkSource, State]], eval_zip: Path | None) -> str:
    """Which benchmarks are ready, and what to do next."""
    ready = [source.name for source, state in states if state.complete]
    lines = [f"{len(ready)} of {len(states)} ready" + (f": {', '.join(ready)}" if ready else "")]
    if eval_zip is None and len(ready) < len(states):
        lines.append(
            f"LLaVA's eval.zip ({EVAL_ZIP_PAGE}) is not in {root}; without it, question files are made from the "
            "annotations, with the same ids and texts"
        )
    if ready:
        script = "all" if len(ready) == len(SOURCES) else ready[0]
        lines.append(f"evaluate: bash scripts/eval/{script}.sh CHECKPOINT --eval-root {shlex.quote(str(root))}")
    return "\n".join(lines)


def list_sources() -> str:
    """The benchmarks with their files, addresses and counts."""
    lines = []
    for source in SOURCES.values():
        name, expected = next(iter(source.expected.items()))
        rows, folder = f"{expected[0].rows:,} questions", source.benchmark.folders[0]
        lines.append(f"{source.name}: {source.title}, {rows}; folder {folder}")
        for file in source.files:
            size = f" ({file.size})" if file.size else ""
            lines.append(f"  {file.place}\n      {file.url}{size}")
            lines += [f"      or {web_address(url)}" for url in file.urls[1:]]
            lines += [f"      {file.terms}"] if file.terms else []
        if source.make is not None:
            lines.append(f"  {name}\n      from LLaVA's eval.zip, or made from the files above")
        if source.pictures is not None:
            lines.append(f"  {source.pictures.places[0]}/\n      {source.pictures.get}")
            lines += [f"      or a mirror: {mirror}" for mirror in source.pictures.mirrors]
    lines.append(f"LLaVA's eval.zip ({EVAL_ZIP.size}, SHA-256 {EVAL_ZIP.sha256})\n      {EVAL_ZIP_PAGE}")
    lines += [f"      or a mirror: {web_address(url)}" for url in EVAL_ZIP.urls]
    return "\n".join(lines)
