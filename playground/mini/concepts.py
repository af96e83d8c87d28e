"""The concepts of the miniature: names, categories, frequencies and sprites."""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from llava.errors import InputError

ATLAS = Path(__file__).resolve().parent / "atlas"

HELD_OUT_PERCENT = 13
"""Share of all pairs of concepts that never share a training scene."""


@dataclass(frozen=True)
class Concept:
    """An object that can be in a scene; ``cell`` is (column, row) in the atlas, ``weight`` its frequency."""

    name: str
    category: str
    cell: tuple[int, int]
    weight: float


@lru_cache(maxsize=1)
def concepts() -> MappingProxyType[str, Concept]:
    """All concepts by name, in atlas order.

    Frequencies decrease with a rank derived from a checksum of the name, so that some concepts are popular (needed for
    POPE's popular negatives). The most frequent is drawn only twice as often as the rarest, because the benchmarks ask
    for all of them equally often and models this small see few pictures.
    """
    table = json.loads((ATLAS / "concepts.json").read_text(encoding="utf-8"))["concepts"]
    order = sorted((row["name"] for row in table), key=lambda name: zlib.crc32(name.encode()))
    rank = {name: position for position, name in enumerate(order)}
    found = {
        row["name"]: Concept(row["name"], row["category"], tuple(row["cell"]), (rank[row["name"]] + 8) ** -0.3)
        for row in table
    }
    return MappingProxyType(found)


def concept(name: str) -> Concept:
    """Look a concept up by name.

    Raises:
        InputError: There is no such concept.
    """
    try:
        return concepts()[name]
    except KeyError:
        raise InputError(f"unknown concept {name!r}; the names are in {ATLAS.name}/concepts.json") from None


@lru_cache(maxsize=1)
def categories() -> MappingProxyType[str, tuple[str, ...]]:
    """Names of the concepts of every category, in atlas order."""
    groups: dict[str, list[str]] = {}
    for item in concepts().values():
        groups.setdefault(item.category, []).append(item.name)
    return MappingProxyType({category: tuple(names) for category, names in groups.items()})


def is_held_out(first: str, second: str) -> bool:
    """Whether two concepts are a held-out pair: never together in training, only in some test scenes."""
    if first == second:
        return False
    return zlib.crc32("|".join(sorted((first, second))).encode()) % 100 < HELD_OUT_PERCENT


@lru_cache(maxsize=4096)
def held_out_partners(name: str) -> frozenset[str]:
    """The concepts that form a held-out pair with ``name``."""
    return frozenset(other for other in concepts() if is_held_out(name, other))


def contains_held_out_pair(names: Sequence[str]) -> bool:
    """Whether any two of ``names`` are a held-out pair."""
    return any(not held_out_partners(name).isdisjoint(names) for name in names)


@lru_cache(maxsize=1)
def _atlas() -> Image.Image:
    path = ATLAS / "atlas.png"
    if not path.is_file():
        raise InputError(f"{path.name} is missing; make it with: python -m playground.mini.atlas.make_atlas")
    with Image.open(path) as sheet:
        return sheet.convert("RGBA")


@lru_cache(maxsize=4096)
def sprite(name: str, pixels: int) -> Image.Image:
    """The picture of a concept, ``pixels`` x ``pixels``, RGBA; do not modify it (it is cached)."""
    size = cell_size()
    column, row = concept(name).cell
    cell = _atlas().crop((column * size, row * size, (column + 1) * size, (row + 1) * size))
    return cell.convert("RGBa").resize((pixels, pixels), Image.Resampling.LANCZOS).convert("RGBA")


@lru_cache(maxsize=1)
def cell_size() -> int:
    """Side of an atlas cell in pixels."""
    return int(json.loads((ATLAS / "concepts.json").read_text(encoding="utf-8"))["cell_size"])


@lru_cache(maxsize=4096)
def share_of_colour(name: str, colour: tuple[int, int, int], distance: float = 80.0) -> float:
    """Share of a concept's opaque pixels within ``distance`` (Euclidean, RGB) of a colour, 0 to 1."""
    pixels = np.asarray(sprite(name, cell_size()), dtype=np.float32).reshape(-1, 4)
    opaque = pixels[pixels[:, 3] > 128][:, :3]
    return float((np.linalg.norm(opaque - np.asarray(colour, dtype=np.float32), axis=1) < distance).mean())
