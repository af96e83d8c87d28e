"""The sheet of sprites: complete, distinct, licensed, and laid out as the script lays it out."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from llava.errors import InputError
from playground.mini.atlas.make_atlas import (
    CELL,
    COLUMNS,
    LABELS,
    PICTURES,
    cut_sprite,
    picture_file,
    read_labels,
)
from playground.mini.concepts import ATLAS, categories, concept, concepts, sprite
from playground.mini.wording import a, plural


def test_concepts_are_many_and_balanced():
    sizes = Counter(item.category for item in concepts().values())
    assert len(concepts()) == 72
    assert len(sizes) == 12
    assert set(sizes.values()) == {6}
    assert sum(map(len, categories().values())) == len(concepts())


def test_names_are_plain_english_of_one_or_two_words():
    for name in concepts():
        assert name == name.lower() and 1 <= len(name.split()) <= 2
        assert all(word.isalpha() for word in name.split())


def test_table_follows_the_selection_row_by_row():
    table = json.loads((ATLAS / "concepts.json").read_text())
    selection = json.loads((ATLAS / "selection.json").read_text())
    assert (table["pictures"], table["labels"], table["cell_size"]) == (PICTURES, LABELS, CELL)
    chosen = [(c, label, name) for c, items in selection.items() for label, name in items.items()]
    assert [(row["category"], row["label"], row["name"]) for row in table["concepts"]] == chosen
    for index, row in enumerate(table["concepts"]):
        assert row["cell"] == [index % COLUMNS, index // COLUMNS]
        assert row["group"] in ("animals-nature", "food-drink", "travel-places", "activities", "objects")
        assert "face" not in row["subgroup"].split("-")[:1]


def test_sheet_is_small_and_every_cell_is_filled():
    path = ATLAS / "atlas.png"
    assert path.stat().st_size < 1_200_000
    with Image.open(path) as sheet:
        assert sheet.mode == "RGBA"
        assert sheet.size == (COLUMNS * CELL, CELL * -(-len(concepts()) // COLUMNS))
        alpha = np.asarray(sheet)[:, :, 3]
    for item in concepts().values():
        column, row = item.cell
        cell = alpha[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] > 128
        assert 0.08 < cell.mean() < 0.95, item.name
        rows, columns = np.flatnonzero(cell.any(axis=1)), np.flatnonzero(cell.any(axis=0))
        assert max(np.ptp(rows), np.ptp(columns)) >= CELL - 4, f"{item.name} does not fill its cell"


def test_no_two_sprites_look_alike_at_24_pixels():
    canvas = np.stack([_on_gray(name) for name in concepts()])
    distances = np.abs(canvas[:, None] - canvas[None]).mean(axis=(2, 3, 4))
    np.fill_diagonal(distances, 1e9)
    assert distances.min() > 14, "of 255, mean over pixels and channels"


def _on_gray(name: str) -> np.ndarray:
    background = Image.new("RGB", (24, 24), (128, 128, 128))
    picture = sprite(name, 24)
    background.paste(picture, (0, 0), picture)
    return np.asarray(background, dtype=np.float32)


def test_licences_are_in_place():
    assert "Apache License" in (ATLAS / "LICENSE-noto-emoji.txt").read_text()
    for name in ("LICENSE-emojibase.txt", "LICENSE-emoji-datasource.txt"):
        assert "Permission is hereby granted" in (ATLAS / name).read_text()
    readme = (ATLAS / "README.md").read_text()
    for word in (PICTURES, LABELS, "Apache-2.0", "MIT", "playground.mini.atlas.make_atlas"):
        assert word in readme


def test_frequencies_are_skewed():
    weights = sorted((item.weight for item in concepts().values()), reverse=True)
    assert 1.5 < weights[0] / weights[-1] < 3


def test_unknown_concept_is_named():
    with pytest.raises(InputError, match="gryphon"):
        concept("gryphon")


def test_cut_sprite_crops_fits_and_centres(tmp_path):
    picture = Image.new("RGBA", (64, 64))
    picture.paste((200, 10, 10, 255), (10, 20, 42, 36))  # 32 x 16, so scaled by 1.5
    picture.save(tmp_path / "box.png")
    cell = np.asarray(cut_sprite(tmp_path / "box.png"))
    assert cell.shape == (CELL, CELL, 4)
    rows, columns = np.nonzero(cell[:, :, 3] > 128)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (0, 47, 12, 35)
    assert np.all(cell[cell[:, :, 3] == 0] == 0)


def test_labels_and_pictures_are_found_in_packages(tmp_path):
    (tmp_path / "meta").mkdir()
    (tmp_path / "en").mkdir()
    groups = {"groups": {"3": "animals-nature"}, "subgroups": {"34": "animal-mammal"}}
    (tmp_path / "meta/groups.json").write_text(json.dumps(groups))
    entries = [{"label": "fox", "group": 3, "subgroup": 34, "hexcode": "1F98A"}, {"label": "no group"}]
    (tmp_path / "en/data.json").write_text(json.dumps(entries))
    labels = read_labels(tmp_path)
    assert list(labels) == ["fox"] and labels["fox"]["subgroup"] == "animal-mammal"
    assert picture_file(tmp_path, {"1F98A": "1f98a.png"}, "1F98A-FE0F").name == "1f98a.png"
    with pytest.raises(InputError, match="1F999"):
        picture_file(tmp_path, {}, "1F999")


def test_articles_and_plurals():
    assert (a("owl"), a("cat"), a("ice cream")) == ("an owl", "a cat", "an ice cream")
    plurals = {
        "butterfly": "butterflies",
        "bus": "buses",
        "toy": "toys",
        "rice ball": "rice balls",
    }
    assert {noun: plural(noun) for noun in plurals} == plurals
    assert plural("lotus") == "lotuses" and plural("peach") == "peaches"
