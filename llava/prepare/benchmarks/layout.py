"""Arranges a benchmark's files in the folders that the evaluation reads, and records their origin."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.errors import InputError
from llava.files import write_json, write_text
from llava.prepare.benchmarks.files import Published, get, member, opened
from llava.prepare.benchmarks.sources import EVAL_ZIP, BenchmarkSource
from llava.prepare.download import sha256_of

logger = logging.getLogger(__name__)

MANIFEST_FORMAT = 1
MADE = "made from the published files"
Record = dict[str, Any]


@dataclass
class Laid:
    """The files that were put in place for one benchmark.

    Attributes:
        folder: The benchmark's folder.
        origins: Map from the path of each added file to where it came from.
        problems: Error messages.
    """

    folder: Path
    origins: dict[Path, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def get_eval_zip(root: Path, given: Path | None, wanted: bool) -> Path | None:
    """LLaVA's ``eval.zip``: the one given, the one in the evaluation root, or one downloaded there.

    Args:
        root: The evaluation root.
        given: The path named by the user, if any.
        wanted: Whether to download it.

    Raises:
        InputError: The path named by the user does not exist.
    """
    if given is not None and not given.is_file():
        raise InputError(f"{given} does not exist; expected LLaVA's eval.zip")
    found = given or EVAL_ZIP.find(root)
    if found is None and wanted:
        try:
            get(EVAL_ZIP, root, may_download=True)
        except InputError:
            logger.warning("LLaVA's eval.zip is not available; question files are made from the published annotations")
    return found or EVAL_ZIP.find(root)


def lay_out(source: BenchmarkSource, root: Path, eval_zip: Path | None, download: bool, accept_terms: bool) -> Laid:
    """Put a benchmark's files in place; existing files are left unchanged.

    Args:
        source: The benchmark.
        root: The evaluation root.
        eval_zip: LLaVA's archive of question files, if there is one.
        download: Whether to download published files.
        accept_terms: Whether to also download files with terms of use.
    """
    laid = Laid(source.folder(root))
    in_zip = eval_zip is not None and _from_zip(source, eval_zip, laid, write=False)
    needs_questions = source.make is not None and source.question_file(laid.folder) is None
    for file in source.files:
        if not file.for_questions or (needs_questions and not in_zip):
            _get(file, laid, download and (accept_terms or not file.terms))
    if needs_questions:
        _lay_questions(source, eval_zip if in_zip else None, laid)
    return laid


def _get(file: Published, laid: Laid, may_download: bool) -> None:
    try:
        origin = get(file, laid.folder, may_download)
    except InputError as error:
        laid.problems.append(str(error))
        return
    if origin is not None:
        laid.origins[laid.folder / file.place] = origin


def _lay_questions(source: BenchmarkSource, eval_zip: Path | None, laid: Laid) -> None:
    """Take the question file from LLaVA's archive, or build it if all published files for it exist."""
    if eval_zip is not None and _from_zip(source, eval_zip, laid, write=True):
        return
    if source.make is None or any(file.find(laid.folder) is None for file in source.files):
        return
    target = laid.folder / source.benchmark.questions[0]
    try:
        write_text(target, source.make(laid.folder))
    except InputError as error:
        laid.problems.append(str(error))
        return
    laid.origins[target] = MADE


def _from_zip(source: BenchmarkSource, eval_zip: Path, laid: Laid, write: bool) -> bool:
    """Whether the archive contains the benchmark's question file; with ``write`` it is extracted."""
    name = source.benchmark.questions[0]
    with opened(eval_zip) as packed:
        found = next(filter(None, (member(packed, f"{folder}/{name}") for folder in source.benchmark.folders)), None)
        if found is not None and write:
            laid.folder.mkdir(parents=True, exist_ok=True)
            write_text(laid.folder / name, packed.read(found).decode("utf-8"))
            laid.origins[laid.folder / name] = str(eval_zip)
    return found is not None


def manifest_path(source: BenchmarkSource, root: Path) -> Path:
    """Path of a benchmark's manifest."""
    return root / f"{source.name}.manifest.json"


def read_manifest(source: BenchmarkSource, root: Path) -> Record:
    """The recorded files of a benchmark: map from path in the evaluation root to record; {} without a manifest."""
    try:
        files = json.loads(manifest_path(source, root).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return files if isinstance(files, dict) else {}


def records(source: BenchmarkSource, root: Path, laid: Laid) -> Record:
    """Origin, size and SHA-256 of every existing file; records of unchanged files are kept."""
    before, files = read_manifest(source, root), {}
    paths = [file.find(laid.folder) for file in source.files] + [source.question_file(laid.folder)]
    for path in dict.fromkeys(path for path in paths if path is not None):
        name = path.relative_to(root).as_posix()
        known = before.get(name, {})
        record = {"origin": laid.origins.get(path, known.get("origin", "found there"))}
        if path.is_file():
            record |= {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        files[name] = known if path not in laid.origins and known.get("sha256") else record
    return files


def write_manifest(source: BenchmarkSource, root: Path, files: Record, counts: list[Record]) -> None:
    """Write the records and the comparison of counts, unless there are none."""
    if files:
        content = {"format": MANIFEST_FORMAT, "benchmark": source.name, "files": files, "expected": counts}
        write_json(manifest_path(source, root), content)
