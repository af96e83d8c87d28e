"""Make the sprite sheet of the miniature from two npm packages.

Run from the repository root (needs ``npm`` and a package registry; the result is kept in the repository):

    python -m playground.mini.atlas.make_atlas
"""

import argparse
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from llava.errors import InputError, run_cli

HERE = Path(__file__).resolve().parent
PICTURES = "emoji-datasource-google@16.0.0"
LABELS = "emojibase-data@17.0.0"
CELL = 48
COLUMNS = 12


def fetch(package: str, folder: Path) -> Path:
    """Fetch and unpack one npm package; returns its folder.

    Raises:
        InputError: ``npm`` is missing or the package cannot be fetched.
    """
    target = folder / package.split("@")[0]
    target.mkdir(parents=True)
    try:
        subprocess.run(["npm", "pack", package], cwd=target, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise InputError("npm was not found; install Node.js with npm to rebuild the atlas") from error
    except subprocess.CalledProcessError as error:
        raise InputError(f"npm could not fetch {package}: {error.stderr.strip()[-300:]}") from error
    with tarfile.open(next(target.glob("*.tgz"))) as archive:
        archive.extractall(target, filter="data")
    return target / "package"


def read_labels(package: Path) -> dict[str, dict[str, Any]]:
    """Emojibase's English entries by label, with the group and subgroup spelled out."""
    names = json.loads((package / "meta/groups.json").read_text())
    entries = {}
    for entry in json.loads((package / "en/data.json").read_text()):
        if "group" in entry:
            group, subgroup = names["groups"][str(entry["group"])], names["subgroups"][str(entry["subgroup"])]
            entries[entry["label"]] = {**entry, "group": group, "subgroup": subgroup}
    return entries


def cut_sprite(path: Path) -> Image.Image:
    """Crop a picture to its opaque part and fit it, centred, into a cell; the longer side fills the cell."""
    picture = Image.open(path).convert("RGBA")
    box = picture.getchannel("A").point(lambda alpha: 255 if alpha > 24 else 0).getbbox()
    picture = picture.crop(box)
    scale = CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # Resizing with premultiplied alpha keeps the hidden colour of transparent pixels out of the edges.
    picture = picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    cell = Image.new("RGBA", (CELL, CELL))
    cell.paste(picture, ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    # Fully transparent pixels become (0, 0, 0, 0), which compresses best.
    return Image.composite(cell, Image.new("RGBA", cell.size), cell.getchannel("A").point(lambda a: 255 if a else 0))


def picture_file(package: Path, emojis: dict[str, str], hexcode: str) -> Path:
    """The 64 px picture of a code point; file names may contain the variation selector FE0F."""
    image = emojis.get(hexcode.upper().replace("-FE0F", ""))
    if image is None:
        raise InputError(f"{PICTURES} has no picture for code point {hexcode}; choose another concept")
    return package / "img/google/64" / image


def make(output: Path) -> int:
    """Write the sheet, ``concepts.json`` and the packages' licences; returns the number of concepts."""
    selection: dict[str, dict[str, str]] = json.loads((HERE / "selection.json").read_text())
    with tempfile.TemporaryDirectory() as temporary:
        pictures, labels = fetch(PICTURES, Path(temporary)), fetch(LABELS, Path(temporary))
        entries = read_labels(labels)
        files = {
            emoji["unified"].replace("-FE0F", ""): emoji["image"]
            for emoji in json.loads((pictures / "emoji.json").read_text())
        }
        chosen = [(c, label, name) for c, items in selection.items() for label, name in items.items()]
        rows = -(-len(chosen) // COLUMNS)
        sheet = Image.new("RGBA", (COLUMNS * CELL, rows * CELL))
        concepts = []
        for index, (category, label, name) in enumerate(tqdm(chosen, desc="atlas", unit="sprite", disable=None)):
            if label not in entries:
                raise InputError(f"selection.json names {label!r}, which {LABELS} does not have; check the spelling")
            entry = entries[label]
            column, row = index % COLUMNS, index // COLUMNS
            sheet.paste(cut_sprite(picture_file(pictures, files, entry["hexcode"])), (column * CELL, row * CELL))
            concepts.append(
                {
                    "name": name,
                    "category": category,
                    "label": label,
                    "hexcode": entry["hexcode"],
                    "group": entry["group"],
                    "subgroup": entry["subgroup"],
                    "tags": entry.get("tags", []),
                    "cell": [column, row],
                }
            )
        sheet.save(output / "atlas.png", optimize=True)
        lines = ",\n  ".join(json.dumps(concept, ensure_ascii=False) for concept in concepts)
        head = json.dumps({"cell_size": CELL, "pictures": PICTURES, "labels": LABELS}, indent=1)[1:-2]
        (output / "concepts.json").write_text(f'{{{head},\n "concepts": [\n  {lines}\n ]\n}}\n', encoding="utf-8")
        shutil.copy(labels / "LICENSE", output / "LICENSE-emojibase.txt")
        shutil.copy(pictures / "LICENSE", output / "LICENSE-emoji-datasource.txt")
    return len(concepts)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=HERE, help="folder to write into (default: this package)")
    print(f"{make(parser.parse_args().output)} concepts written")


if __name__ == "__main__":
    run_cli(main)
