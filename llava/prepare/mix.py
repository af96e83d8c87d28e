"""Build one mix: stream the published file into LLaVA's format and write a manifest next to it."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from tqdm import tqdm

from llava.errors import InputError
from llava.files import write_json, write_text
from llava.prepare.download import sha256_of
from llava.prepare.image_folders import IMAGE_FOLDERS
from llava.prepare.images import ImageChecker
from llava.prepare.output import EntryWriter
from llava.prepare.rows import Converted, convert, read_rows
from llava.prepare.sources import Mix
from llava.prepare.tally import TEXT_ONLY, Tally, content_key

MANIFEST_FORMAT = 1
NOT_SAMPLED = "not in the sample"
REPEATED = "repeated row"


@dataclass(frozen=True)
class Options:
    """Options for building a mix.

    Attributes:
        check_images: None, ``exist`` or ``open``.
        drop_bad_images: Leave out rows with a missing or unreadable image; otherwise they are only listed.
        drop_repeated: Leave out rows with the same images and conversations as an earlier row.
        sample: Fraction of the rows to keep; each row is drawn from the seed and its position.
        seed: Random seed of the sample.
        workers: Number of processes that check images; 0 checks them in this process.
        any_checksum: Accept a file whose checksum is not the published one.
    """

    check_images: str | None = None
    drop_bad_images: bool = False
    drop_repeated: bool = False
    sample: float = 1.0
    seed: int = 0
    workers: int = 0
    any_checksum: bool = False


def make_mix(mix: Mix, source: Path, data: Path, output: Path, options: Options) -> dict[str, Any]:
    """Write a mix, its manifest (``NAME.manifest.json``) and, if images are checked, the list of bad images.

    Args:
        mix: The mix to build.
        source: The published file: a JSON list, JSON lines or Parquet.
        data: The data folder; image paths are relative to it.
        output: The ``.json`` or ``.jsonl`` file to write.
        options: How to build it.

    Returns:
        The manifest.

    Raises:
        InputError: The source is missing, broken, or not the published version, or no row is left; no mix is written.
    """
    if output.exists() and source.exists() and output.samefile(source):
        raise InputError(f"the mix would overwrite its source {source}; choose another --out folder")
    writer = EntryWriter(output)
    origin = _identify(mix, source, options.any_checksum)
    tally = Tally()
    checker = ImageChecker(data, options.check_images, options.workers) if options.check_images else None
    with writer, tqdm(total=origin["bytes"], unit="B", unit_scale=True, desc=mix.name, disable=None) as bar:
        rows: Iterable[Converted] = _usable(mix, source, data, options, tally, bar)
        for row in checker.check(rows) if checker else rows:
            _write(row, writer, tally, checker, options)
        if not writer.rows:
            raise InputError(
                f"no row of {source} is left ({tally.read:,} read; {_reasons(tally)}); inspect the file with "
                f"python -m llava.data.check --data_path {source}"
            )
    manifest = _manifest(mix, origin, data, writer, tally, checker, options)
    _write_bad_images(output, checker)
    write_json(manifest_path(output), manifest)
    return manifest


def manifest_path(output: Path) -> Path:
    """Path of a mix's manifest."""
    return output.with_name(f"{output.stem}.manifest.json")


def bad_images_path(output: Path) -> Path:
    """Path of the list of a mix's missing and unreadable images."""
    return output.with_name(f"{output.stem}.bad_images.tsv")


def _identify(mix: Mix, source: Path, any_checksum: bool) -> dict[str, Any]:
    if not source.is_file():
        raise InputError(f"{source} does not exist; download it from {mix.url} or pass --download")
    size = source.stat().st_size
    with tqdm(total=size, unit="B", unit_scale=True, desc=f"SHA-256 of {source.name}", disable=None) as bar:
        found = sha256_of(source, bar.update)
    if mix.sha256 and found != mix.sha256 and not any_checksum:
        published = f", {mix.size} published" if mix.size else ""
        raise InputError(
            f"{source} has SHA-256 {found}, the published file {mix.sha256} ({size:,} bytes found{published}): it is "
            "truncated, modified or another version. Remove it and pass --download, or pass --any_checksum to use it "
            "as it is"
        )
    matches = None if mix.sha256 is None else found == mix.sha256
    return {
        "file": str(source),
        "url": mix.url,
        "bytes": size,
        "sha256": found,
        "sha256_published": mix.sha256,
        "sha256_matches": matches,
    }


def _usable(mix: Mix, source: Path, data: Path, options: Options, tally: Tally, bar: tqdm) -> Iterator[Converted]:
    moved = {path: folder.find(data) for path, folder in IMAGE_FOLDERS.items() if folder.find(data) != path}
    earlier: set[int] = set()
    for row in read_rows(source, bar.update):
        tally.read += 1
        result = convert(row, mix.name, mix.image_prefix)
        result.where = f"entry {row.index} (line {row.line})"
        if result.entry is None:
            tally.drop(result.reason, result.where, result.detail)
            continue
        tally.usable(result)
        if options.sample < 1 and not _drawn(row.index, options):
            tally.dropped[NOT_SAMPLED] += 1
            continue
        result.content = content_key(result)
        if options.drop_repeated:
            if result.content in earlier:
                tally.drop(REPEATED, result.where)
                continue
            earlier.add(result.content)
        for old, new in moved.items():
            result.move_images(old, new)
        yield result


def _drawn(index: int, options: Options) -> bool:
    digest = blake2b(f"{options.seed}:{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < options.sample * 2**64


def _write(row: Converted, writer: EntryWriter, tally: Tally, checker: ImageChecker | None, options: Options) -> None:
    if checker is not None and options.drop_bad_images:
        for path in row.images:
            if path in checker.bad:
                tally.drop(checker.bad[path][0], row.where, path)
                return
    assert row.entry is not None
    writer.write(row.entry)
    tally.keep(row, row.content)


def _reasons(tally: Tally) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in tally.dropped.most_common()) or "the file is empty"


def _manifest(
    mix: Mix,
    origin: dict[str, Any],
    data: Path,
    writer: EntryWriter,
    tally: Tally,
    checker: ImageChecker | None,
    options: Options,
) -> dict[str, Any]:
    settings = asdict(options)
    del settings["workers"]
    folders = {}
    for path, rows in tally.folders.most_common():
        if path != TEXT_ONLY:
            place = IMAGE_FOLDERS[path].find(data) if path in IMAGE_FOLDERS else path
            folders[path] = {"rows": rows, "used_from": place, "exists": (data / place).is_dir()}
    return {
        "format": MANIFEST_FORMAT,
        "mix": mix.name,
        "source": origin,
        "output": {
            "file": str(writer.path), "bytes": writer.bytes, "sha256": writer.sha256, "rows": writer.rows
        },
        "rows": {
            "read": tally.read,
            "kept": tally.kept,
            "dropped": dict(tally.dropped.most_common()),
            "changed": dict(tally.changed.most_common()),
            "text_only": tally.text_only,
            "repeated_ids": tally.repeated_ids,
            "repeated_rows": tally.repeated_rows,
        },
        "expected": tally.compare(mix.expected),
        "image_folder": str(data),
        "image_folders": folders,
        "images": _image_counts(checker),
        "examples": tally.examples,
        "options": settings,
    }  # fmt: skip


def _image_counts(checker: ImageChecker | None) -> dict[str, Any] | None:
    if checker is None:
        return None
    kinds = [kind for kind, _ in checker.bad.values()]
    counts = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    return {"how": checker.mode, "checked": checker.distinct, "bad": len(kinds), **counts}


def _write_bad_images(output: Path, checker: ImageChecker | None) -> None:
    path = bad_images_path(output)
    if checker is None or not checker.bad:
        path.unlink(missing_ok=True)
        return
    lines = [f"{image}\t{kind}\t{' '.join(detail.split())}\n" for image, (kind, detail) in checker.bad.items()]
    write_text(path, "".join(lines))
