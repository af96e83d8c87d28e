"""The command line of ``llava.prepare``.

    python -m llava.prepare --list
    python -m llava.prepare all --data playground/data --dry_run
    python -m llava.prepare student-finetune --data playground/data --download --check_images
    python -m llava.prepare benchmarks --root playground/data/eval --download

The last form has its own command line: :mod:`llava.prepare.benchmarks.cli`.

Exit status: 0 if everything is there, 1 if something is missing (``--dry_run``) or rows in the mix have bad images
(``--check_images``, ``--find_images``), 2 for wrong usage or unusable files.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from llava.cores import cores
from llava.errors import InputError
from llava.flags import add_flag
from llava.prepare.benchmarks import cli as benchmarks_cli
from llava.prepare.download import download
from llava.prepare.images import EXIST, OPEN
from llava.prepare.mix import Options, make_mix
from llava.prepare.report import list_mixes, state_of, summary, where_to_get
from llava.prepare.sources import MIXES, Mix, get_mix


def build_parser() -> argparse.ArgumentParser:
    """The command-line parser; flags may be written with dashes or underscores."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.prepare", description="Make the paper's training mixes from the published files."
    )
    names = f"{', '.join(MIXES)}, or all; `benchmarks` has its own flags, see `benchmarks --help`"
    parser.add_argument("mixes", nargs="*", metavar="MIX", help=names)
    flag = partial(add_flag, parser)
    flag("--list", action="store_true", help="list the mixes, their files and image folders, and exit")
    flag("--data", type=Path, help="data folder: published files and image folders")
    flag("--out", type=Path, help="output folder of the mixes (default: DATA/mixes)")
    flag("--source", type=Path, help="published file, if it is elsewhere, or a .jsonl or .parquet version")
    flag("--dry_run", action="store_true", help="report what is found and what is missing, and exit")
    flag("--download", action="store_true", help="download published annotation files (no images)")
    flag("--any_checksum", action="store_true", help="accept a file that is not the published version")
    looks = parser.add_mutually_exclusive_group()
    add_flag(looks, "--check_images", action="store_true", help="read every image completely")
    add_flag(looks, "--find_images", action="store_true", help="only check that every image exists")
    flag("--drop_bad_images", action="store_true", help="leave out rows with missing or unreadable images")
    flag("--drop_repeated", action="store_true", help="leave out exact duplicates of rows")
    flag("--sample", type=float, default=1.0, help="fraction of the rows to keep (default: all)")
    flag("--seed", type=int, default=0, help="random seed of --sample (default: %(default)s)")
    flag("--workers", type=int, default=min(8, cores()), help="processes that check images")
    return parser


def check_arguments(args: argparse.Namespace) -> list[Mix]:
    """The mixes named on the command line.

    Raises:
        InputError: A mix is unknown, the data folder is missing, or a value or combination of flags is invalid.
    """
    names = list(MIXES) if "all" in args.mixes else list(dict.fromkeys(args.mixes))
    mixes = [get_mix(name) for name in names]
    if not mixes:
        raise InputError(f"no mix given; name one or more of {', '.join(MIXES)}, or all (--list shows them)")
    if args.data is None:
        raise InputError("no data folder given; pass --data with the folder of published files and images")
    if not args.data.is_dir() and not (args.download or args.dry_run):
        raise InputError(f"data folder {str(args.data)!r} does not exist; create it, or pass --download to fill it")
    if args.source is not None and (len(mixes) > 1 or args.download):
        raise InputError("--source is an existing file of one mix; name one mix and leave out --download")
    if not 0 < args.sample <= 1:
        raise InputError(f"--sample is {args.sample}, expected a fraction above 0 and at most 1")
    if args.workers < 0:
        raise InputError(f"--workers is {args.workers}, expected 0 (no worker processes) or more")
    if args.drop_bad_images and not (args.check_images or args.find_images):
        raise InputError("--drop_bad_images needs the images to be checked; add --check_images or --find_images")
    return mixes


def main(argv: list[str] | None = None) -> int:
    """Run the command and return the exit status; see the module's docstring."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["benchmarks"]:
        return benchmarks_cli.main(argv[1:])
    args = build_parser().parse_args(argv)
    if args.list:
        sys.stdout.write(list_mixes() + "\n")
        return 0
    mixes = check_arguments(args)
    if args.dry_run:
        return _report_state(mixes, args)
    sources = [_source(mix, args) for mix in mixes]
    options = Options(
        check_images=OPEN if args.check_images else EXIST if args.find_images else None,
        drop_bad_images=args.drop_bad_images,
        drop_repeated=args.drop_repeated,
        sample=args.sample,
        seed=args.seed,
        workers=args.workers,
        any_checksum=args.any_checksum,
    )
    status = 0
    for mix, source in zip(mixes, sources, strict=True):
        output = (args.out or args.data / "mixes") / f"{mix.name}.json"
        manifest = make_mix(mix, source, args.data, output, options)
        sys.stdout.write(summary(mix, manifest, output, options) + "\n")
        if manifest["images"] and manifest["images"]["bad"] and not options.drop_bad_images:
            status = 1
    return status


def _report_state(mixes: list[Mix], args: argparse.Namespace) -> int:
    states = [state_of(mix, args.data, args.source) for mix in mixes]
    parts = [*(state.text for state in states), where_to_get(mixes, states, args.data)]
    sys.stdout.write("\n\n".join(filter(None, parts)) + "\n")
    return 0 if all(state.complete for state in states) else 1


def _source(mix: Mix, args: argparse.Namespace) -> Path:
    """The published file of a mix, downloaded first with ``--download``."""
    found = args.source or mix.find(args.data)
    if found is not None:
        return found
    target = args.data / mix.places[0]
    if not args.download:
        raise InputError(
            f"{mix.name}: no {Path(mix.places[0]).name} in {args.data} (tried {', '.join(mix.places)}); download "
            f"it from {mix.url}, pass --download, or name it with --source"
        )
    download(mix.url, target, None if args.any_checksum else mix.sha256)
    return target
