"""What the command prints: the list of mixes, what is missing, and what was made."""

from pathlib import Path
from typing import Any

from llava.data.check_report import MISSING_IMAGE, UNREADABLE_IMAGE
from llava.data.prepare.mix import Options, bad_images_path, manifest_path
from llava.data.prepare.sources import IMAGE_FOLDERS, MIX_FOLDERS, MIXES, Mix

EXAMPLES_SHOWN = 2


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
    lines += ["", "Image folders (below the data folder; pictures are not downloaded):"]
    needed = [(path, ", ".join(name for name in MIXES if path in MIX_FOLDERS[name])) for path in IMAGE_FOLDERS]
    lines += table([(f"  {path}", names, IMAGE_FOLDERS[path].get) for path, names in needed])
    return "\n".join(lines)


def state_of(mix: Mix, data: Path, source: Path | None) -> tuple[str, bool]:
    """What there is of a mix in the data folder, and whether that is everything its publishers list."""
    file = source or mix.find(data)
    rows: list[tuple[str, ...]] = []
    if file is not None and file.is_file():
        size = f"{file.stat().st_size:,} bytes" + (f" (published: {mix.size})" if mix.size else "")
        rows.append(("file", "found", str(file), size))
        complete = True
    else:
        part = data / f"{mix.places[0]}.part"
        begun = f" ({part.stat().st_size:,} bytes of it are there, --download goes on)" if part.is_file() else ""
        rows.append(("file", "missing", str(file or data / mix.places[0]), f"{mix.url}{begun}"))
        complete = False
    for path in MIX_FOLDERS[mix.name]:
        folder = IMAGE_FOLDERS[path]
        place = folder.find(data)
        exists = (data / place).is_dir()
        rows.append(("images", "found" if exists else "missing", str(data / place), "" if exists else folder.get))
        complete &= exists
    return "\n".join([f"{mix.name} ({mix.stage})", *("  " + line for line in table(rows))]), complete


def summary(mix: Mix, manifest: dict[str, Any], output: Path, options: Options) -> str:
    """A made mix in a few lines: counts, what differs from the published figures, what is missing."""
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
            known = IMAGE_FOLDERS.get(path)
            where = known.get if known else "unknown to this program; see the publisher's page"
            lines.append(f"  MISSING   folder {found['used_from']} of {found['rows']:,} rows; get it: {where}")
    lines += _images(manifest["images"], output, options)
    lines.append(f"  manifest  {manifest_path(output)}")
    stem = mix.preset_variable
    lines.append(f"  train with  {stem}_DATA={output} {stem}_IMAGES={manifest['image_folder']}")
    return "\n".join(lines)


def _images(images: dict[str, Any] | None, output: Path, options: Options) -> list[str]:
    if images is None:
        return ["  images were not looked at (--check_images, --find_images)"]
    how = "looked for" if images["how"] == "exist" else "opened"
    missing, unreadable = images.get(MISSING_IMAGE, 0), images.get(UNREADABLE_IMAGE, 0)
    line = f"  images    {images['checked']:,} different ones {how}, {missing:,} missing, {unreadable:,} unreadable"
    if not missing and not unreadable:
        return [line]
    fate = "their rows were left out" if options.drop_bad_images else "their rows are in the mix (--drop_bad_images)"
    return [line, f"            listed in {bad_images_path(output)}; {fate}"]
