"""Check training data before a run.

    python -m llava.data.check --data_path data/mix.json --image_folder data/images \\
        --model_name_or_path Qwen/Qwen2-0.5B --version qwen --model_max_length 2048

Reads every entry, opens every image once and, given a tokenizer, measures the length of every sample as in training.
It continues after errors as far as the file format allows: a broken line of a ``.jsonl`` file is skipped, a broken
``.json`` list ends there. Exit status: 0 if no errors were found, 1 if the data has errors, 2 for wrong usage.
"""

import argparse
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from llava.conversation import ASSISTANT, HUMAN, get_template
from llava.cores import cores
from llava.data.annotations.entry import parse_entry
from llava.data.annotations.json_stream import Row, iter_rows, require_annotation_file, split_paths
from llava.data.check.report import (
    BROKEN_JSON,
    DUPLICATE_ID,
    GPT_FIRST,
    NO_ENTRIES,
    UNANSWERED,
    Finding,
    Report,
)
from llava.data.check.samples import Sample, Settings, examine, kept_tokenizer
from llava.errors import InputError, run_cli
from llava.files import write_json

SAMPLES_PER_BATCH = 64
Examined = tuple[list[Finding], list[int]]


@dataclass
class Checker:
    """One pass over annotation files.

    Attributes:
        files: The annotation files.
        image_folder: Folder that image paths are relative to; None for each annotation file's folder.
        settings: Settings of the length measurement.
        workers: Number of processes that open images and tokenise; 0 does it in this process.
        open_images: Whether to open images.
    """

    files: list[Path]
    image_folder: Path | None = None
    settings: Settings = field(default_factory=Settings)
    workers: int = 0
    open_images: bool = True
    report: Report = field(default_factory=Report)
    _ids: set[int] = field(default_factory=set)
    _seen_images: set[int] = field(default_factory=set)

    def run(self) -> Report:
        """Check all files and return the report."""
        total = sum(file.stat().st_size for file in self.files)
        with tqdm(unit=" entries", desc="checking", disable=None) as bar:
            progress = _Progress(bar, total)
            for findings, positions in self._examined(self._batches(progress)):
                for finding in findings:
                    self.report.add(finding)
                self.report.tokens.extend(positions)
                progress.show(self.report.entries)
        return self.report

    def _batches(self, progress: "_Progress") -> Iterator[list[Sample]]:
        batch: list[Sample] = []
        for file in self.files:
            before = self.report.entries
            try:
                for row in iter_rows(file, progress.read, keep_broken=True):
                    batch += self._samples(file, row)
                    if len(batch) >= SAMPLES_PER_BATCH:
                        yield batch
                        batch = []
            except InputError as error:
                self.report.add(Finding(BROKEN_JSON, str(error)))
            else:
                if self.report.entries == before:
                    self.report.add(Finding(NO_ENTRIES, str(file)))
        yield batch

    def _samples(self, file: Path, row: Row) -> list[Sample]:
        """Record the cheap findings about an entry; return it if it needs the expensive checks."""
        self.report.entries += 1
        if row.error:
            self.report.add(Finding(BROKEN_JSON, f"{file}, entry {row.index} (line {row.line})", row.error))
            return []
        entry = parse_entry(row.value)
        where = f"{file}, entry {row.index} (id {entry.id!r}, line {row.line})"
        self.report.text_only += not entry.image
        if entry.id and _seen(entry.id, self._ids):
            self.report.add(Finding(DUPLICATE_ID, where))
        if entry.problem:
            self.report.add(Finding(entry.problem_kind, where, entry.problem))
            return []
        self.report.words.append(abs(entry.length))
        if entry.conversations[0]["from"] == ASSISTANT:
            self.report.add(Finding(GPT_FIRST, where, "its first turn is dropped"))
        if entry.conversations[-1]["from"] == HUMAN:
            self.report.add(Finding(UNANSWERED, where, "its last turn is dropped"))
        images: list[Path] = []
        if self.open_images:
            paths = [(self.image_folder or file.parent) / path for path in entry.image]
            images = [path for path in paths if not _seen(str(path), self._seen_images)]
            self.report.images += len(images)
        return [Sample(where, entry.conversations, len(entry.image), images)]

    def _examined(self, batches: Iterator[list[Sample]]) -> Iterator[Examined]:
        if self.workers == 0:
            for batch in batches:
                yield examine(self.settings, batch)
            return
        context = get_context("forkserver")
        context.set_forkserver_preload(["llava.data.check.samples"])
        waiting: deque[Future[Examined]] = deque()
        with ProcessPoolExecutor(self.workers, mp_context=context) as pool:
            for batch in batches:
                waiting.append(pool.submit(examine, self.settings, batch))
                if len(waiting) > 4 * self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


class _Progress:
    """Shows the number of checked entries, of a total estimated from the bytes read so far."""

    def __init__(self, bar: tqdm, total_bytes: int):
        self._bar, self._total_bytes, self._read_bytes = bar, total_bytes, 0

    def read(self, count: int) -> None:
        self._read_bytes += count

    def show(self, entries: int) -> None:
        self._bar.total = round(entries * self._total_bytes / max(self._read_bytes, 1))
        self._bar.update(entries - self._bar.n)


def _seen(text: str, earlier: set[int]) -> bool:
    """Whether ``text`` was seen before; only its hash is stored."""
    key = hash(text)
    known = key in earlier
    earlier.add(key)
    return known


def build_parser() -> argparse.ArgumentParser:
    """The command-line parser of the checker."""
    parser = argparse.ArgumentParser(prog="python -m llava.data.check", description="Check LLaVA-format training data.")
    parser.add_argument("--data_path", required=True, help=".json or .jsonl file, or several separated by commas")
    parser.add_argument("--image_folder", type=Path, help="folder of the images (default: the data file's folder)")
    parser.add_argument("--model_name_or_path", help="model whose tokenizer is used to measure lengths")
    parser.add_argument("--version", default="qwen", help="prompt template (default: %(default)s)")
    parser.add_argument("--model_max_length", type=int, help="maximum length in tokens; needs a tokenizer")
    parser.add_argument("--visual_tokens", type=int, default=729, help="tokens per image (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=min(8, cores()), help="worker processes (0: none)")
    parser.add_argument("--no_images", action="store_true", help="do not open images")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report to this file")
    return parser


def make_checker(args: argparse.Namespace) -> Checker:
    """A checker from parsed arguments.

    Raises:
        InputError: A file or folder is missing, or a value is invalid.
    """
    files = split_paths(args.data_path)
    for file in files:
        require_annotation_file(file)
    if args.image_folder is not None and not args.image_folder.is_dir():
        raise InputError(f"image folder {str(args.image_folder)!r} does not exist")
    if args.workers < 0 or args.visual_tokens < 1:
        raise InputError(
            f"--workers is {args.workers} and --visual_tokens {args.visual_tokens}; expected at least 0 and at least 1"
        )
    get_template(args.version)
    if args.model_name_or_path is not None:
        if not kept_tokenizer(args.model_name_or_path).is_fast:
            raise InputError(
                f"the tokenizer of {args.model_name_or_path!r} is slow; choose a model with a fast tokenizer"
            )
    elif args.model_max_length is not None:
        raise InputError("--model_max_length needs a tokenizer; pass --model_name_or_path")
    settings = Settings(args.model_name_or_path, args.version, args.model_max_length, args.visual_tokens)
    return Checker(files, args.image_folder, settings, args.workers, not args.no_images)


def main(argv: list[str] | None = None) -> int:
    """Run the checker; returns 0 if the data has no errors, else 1."""
    args = build_parser().parse_args(argv)
    checker = make_checker(args)
    report = checker.run()
    sys.stdout.write(report.as_text() + "\n")
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.json, report.as_json())
    return 1 if report.errors else 0


if __name__ == "__main__":
    run_cli(main)
