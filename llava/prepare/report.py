"""The command's output: the list of mixes, missing files, and results."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.data.check.report import MISSING_IMAGE, UNREADABLE_IMAGE
from llava.prepare.image_folders import IMAGE_FOLDERS, MIX_FOLDERS, ImageFolder
from llava.prepare.mix import Options, bad_images_path, manifest_path
from llava.prepare.sources import MIXES, Mix

EXAMPLES_SHOWN = 2
DATA_ROOT = Path(__file__).resolve().parents[2] / "playground" / "data"
"""The launch scripts' default data folder (``--data_root``)."""


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows as lines with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def list_mixes() -> str:
    """The mixes with rows, sizes and addresses, and the image folders they need."""
    rows: list[tuple[str, ...]] = [("mix", "trains", "rows", "file size", "published file")]
    for mix in MIXES.values():
        total = mix.expected[0]
        count = f"{total.rows:,}" if total.unit == 1 else f"about {total.rows:,}"
        rows.append((mix.name, mix.stage, count, mix.size or "not stated", mix.url))
    lines = table(rows) + [""]
    lines += table([(mix.name, mix.content) for mix in MIXES.values()])
    lines += ["", "Image folders (in the data folder DATA; images are not downloaded):"]
    for path, folder in IMAGE_FOLDERS.items():
        lines.append(f"  {path}  of {', '.join(name for name in MIXES if path in MIX_FOLDERS[name])}")
        lines += [f"      {source}" for source in folder.sources(Path("DATA"))]
    return "\n".join(lines)


@dataclass(frozen=True)
class MixState:
    """The state of a mix in the data folder.

    Attributes:
        text: The report: a line for its file and for each image folder that its publishers list.
        file: Whether its file exists.
        missing: The image folders that are missing.
    """

    text: str
    file: bool
    missing: tuple[ImageFolder, ...]

    @property
    def complete(self) -> bool:
        """Whether everything is there."""
        return self.file and not self.missing


def state_of(mix: Mix, data: Path, source: Path | None) -> MixState:
    """Check which files of a mix exist in the data folder; ``source`` is its file if that is elsewhere."""
    file = source or mix.find(data)
    there = file is not None and file.is_file()
    note = f"published: {mix.size}" if mix.size else ""
    if file is not None and there:
        note = f"{file.stat().st_size:,} bytes" + (f" ({note})" if note else "")
    part = data / f"{mix.places[0]}.part"
    if not there and part.is_file():
        note = f"{part.stat().st_size:,} bytes are downloaded; --download continues from there"
    rows: list[tuple[str, ...]] = [("file", _state(there), str(file or data / mix.places[0]), note)]
    missing = []
    for folder in (IMAGE_FOLDERS[path] for path in MIX_FOLDERS[mix.name]):
        place = data / folder.find(data)
        rows.append(("images", _state(place.is_dir()), str(place), ""))
        missing += [] if place.is_dir() else [folder]
    return MixState(
        "\n".join([f"{mix.name} ({mix.stage})", *("  " + line for line in table(rows))]), there, tuple(missing)
    )


def _state(there: bool) -> str:
    return "found" if there else "missing"


def where_to_get(mixes: Sequence[Mix], states: Sequence[MixState], data: Path) -> str:
    """Addresses of all missing files, each once; "" if nothing is missing."""
    lines = [f"  {mix.places[0]}\n      {mix.url}" for mix, state in zip(mixes, states, strict=True) if not state.file]
    for folder in dict.fromkeys(folder for state in states for folder in state.missing):
        lines += [f"  {folder.path}", *(f"      {source}" for source in folder.sources(data))]
    return "\n".join(["Where to get what is missing (--download downloads the files):", *lines]) if lines else ""


def summary(mix: Mix, manifest: dict[str, Any], output: Path, options: Options) -> str:
    """A finished mix in a few lines: counts, differences from the published numbers, missing images."""
    rows = manifest["rows"]
    lines = [
        f"{mix.name}: {rows['kept']:,} of {rows['read']:,} rows written to {output} "
        f"({rows['text_only']:,} text only, {rows['repeated_rows']:,} repeat an earlier row)"
    ]
    for reason, count in rows["dropped"].items():
        examples = manifest["examples"].get(reason, [])[:EXAMPLES_SHOWN]
        lines.append(f"  left out  {count:,} {reason}" + (f", e.g. {'; '.join(examples)}" if examples else ""))
    lines += [f"  changed   {count:,} {what}" for what, count in rows["changed"].items()]
    for figure in manifest["expected"]:
        if not figure["agrees"]:
            about = "about " if figure["rounded_to"] > 1 else ""
            lines.append(
                f"  WARNING   {figure['what']}: {figure['found']:,} rows, "
                f"{about}{figure['expected']:,} expected ({figure['stated_by']})"
            )
    if manifest["source"]["sha256_matches"] is False:
        lines.append("  WARNING   the file is not the published version (--any_checksum)")
    for path, found in manifest["image_folders"].items():
        if not found["exists"]:
            lines.append(f"  MISSING   folder {found['used_from']} of {found['rows']:,} rows; get it from:")
            known = IMAGE_FOLDERS.get(path)
            where = known.sources(Path(manifest["image_folder"])) if known else ["unknown; see the publisher's page"]
            lines += [f"            {source}" for source in where]
    lines += _images(manifest["images"], output, options)
    lines.append(f"  manifest  {manifest_path(output)}")
    return "\n".join([*lines, f"  train     {_training(mix, output, Path(manifest['image_folder']))}"])


def _training(mix: Mix, output: Path, data: Path) -> str:
    """The command that trains on a mix; the launch scripts find a mix in the data folder's ``mixes`` without flags."""
    output, data = output.resolve(), data.resolve()
    if output == data / "mixes" / f"{mix.name}.json":
        flags = [] if data == DATA_ROOT else ["--data_root", str(data)]
    else:
        flags = ["--data_path", str(output), "--image_folder", str(data)]
    return shlex.join(["bash", mix.script, *flags])


def _images(images: dict[str, Any] | None, output: Path, options: Options) -> list[str]:
    if images is None:
        return ["  images were not checked (--check_images, --find_images)"]
    how = "looked for" if images["how"] == "exist" else "opened"
    missing, unreadable = images.get(MISSING_IMAGE, 0), images.get(UNREADABLE_IMAGE, 0)
    line = f"  images    {images['checked']:,} different files {how}, {missing:,} missing, {unreadable:,} unreadable"
    if not missing and not unreadable:
        return [line]
    fate = "their rows were left out" if options.drop_bad_images else "their rows are in the mix (--drop_bad_images)"
    return [line, f"            listed in {bad_images_path(output)}; {fate}"]
