"""The command line of ``llava.prepare benchmarks``.

    python -m llava.prepare benchmarks --list
    python -m llava.prepare benchmarks --root playground/data/eval --dry_run
    python -m llava.prepare benchmarks --root playground/data/eval --download --only gqa,pope

Without --download nothing is downloaded: archives in the benchmarks' folders are unpacked, question files are taken
from LLaVA's eval.zip or made from the annotations, and everything is checked.

Exit status: 0 if every chosen benchmark is ready, 1 if something is missing or wrong, 2 for wrong usage.
"""

import argparse
import logging
import sys
from functools import partial
from pathlib import Path

from llava.flags import add_flag
from llava.prepare.benchmarks.check import check
from llava.prepare.benchmarks.layout import get_eval_zip, lay_out, read_manifest, records, write_manifest
from llava.prepare.benchmarks.report import closing, describe, list_sources
from llava.prepare.benchmarks.sources import EVAL_ZIP, SOURCES, get_sources

DEFAULT_ROOT = Path("playground/data/eval")


def build_parser() -> argparse.ArgumentParser:
    """The command-line parser; flags may be written with dashes or underscores."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.prepare benchmarks",
        description="Get the six benchmarks' question and annotation files and check them.",
    )
    flag = partial(add_flag, parser)
    flag("--list", action="store_true", help="list files, addresses and counts, and exit")
    flag("--root", type=Path, default=DEFAULT_ROOT, help="folder of the benchmarks (default: %(default)s)")
    flag("--only", default="all", metavar="NAMES", help=f"benchmarks, separated by commas: {', '.join(SOURCES)}")
    flag("--download", action="store_true", help="download question and annotation files (no images)")
    flag("--accept_terms", action="store_true", help="also download files with terms of use, which you have agreed to")
    flag("--eval_zip", type=Path, help="LLaVA's eval.zip (default: ROOT/eval.zip if it is there)")
    flag("--dry_run", action="store_true", help="report what is found and what is missing, and exit")
    return parser


def main(argv: list[str]) -> int:
    """Run the command and return the exit status; see the module's docstring."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.list:
        sys.stdout.write(list_sources() + "\n")
        return 0
    sources = get_sources(args.only)
    lacking = any(source.make and source.question_file(source.folder(args.root)) is None for source in sources)
    may_download = args.download and not args.dry_run
    eval_zip = args.eval_zip or EVAL_ZIP.find(args.root)
    if not args.dry_run:
        eval_zip = get_eval_zip(args.root, args.eval_zip, may_download and lacking)
    states = []
    for source in sources:
        laid = None if args.dry_run else lay_out(source, args.root, eval_zip, may_download, args.accept_terms)
        files = read_manifest(source, args.root) if laid is None else records(source, args.root, laid)
        state = check(source, args.root, files)
        if laid is not None:
            write_manifest(source, args.root, files, state.counts)
        states.append((source, state))
        sys.stdout.write(describe(source, state, laid) + "\n\n")
    sys.stdout.write(closing(args.root, states, eval_zip) + "\n")
    return 0 if all(state.complete for _, state in states) else 1
