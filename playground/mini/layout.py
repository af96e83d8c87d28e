"""What is in a scene: objects, sign and background, as plain data that goes to JSON and back."""

from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from playground.mini.concepts import concept
from playground.mini.wording import PLACES

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, each as a fraction of the picture's side."""

SIZES = {"small": 0.255, "medium": 0.325, "large": 0.415}
"""Side of an object's box as a fraction of the picture's side (20, 26 and 33 px of 80)."""

ROWS = ("top", "middle", "bottom")


@dataclass(frozen=True)
class SceneObject:
    """One object: what it is, where it is (the nearest of nine places and its exact box) and how big."""

    concept: str
    place: str
    size: str
    box: Box

    @property
    def category(self) -> str:
        """The category of its concept."""
        return concept(self.concept).category

    @property
    def row(self) -> int:
        """0 top, 1 middle, 2 bottom."""
        return PLACES.index(self.place) // 3

    @property
    def column(self) -> int:
        """0 left, 1 middle, 2 right."""
        return PLACES.index(self.place) % 3


@dataclass(frozen=True)
class Sign:
    """A plate with a word across one whole row of the picture."""

    word: str
    row: str
    colour: str

    @property
    def box(self) -> Box:
        """Where the plate is."""
        top = ROWS.index(self.row) / 3
        return (0.03, top + 0.025, 0.97, top + 0.31)


@dataclass(frozen=True)
class Background:
    """``kind`` is plain, gradient, striped or speckled; ``texture`` seeds the details of the pattern."""

    kind: str
    colour: str
    texture: int


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn; ``objects`` are in reading order."""

    key: str
    objects: tuple[SceneObject, ...]
    background: Background
    sign: Sign | None = None
    held_out_pair: bool = False

    @cached_property
    def names(self) -> list[str]:
        """Concepts of the objects in reading order, repeats included."""
        return [item.concept for item in self.objects]

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each concept occurs."""
        return Counter(self.names)

    @cached_property
    def category_counts(self) -> Counter[str]:
        """How many objects of each category there are."""
        return Counter(item.category for item in self.objects)

    def unique_objects(self) -> list[SceneObject]:
        """The objects whose concept occurs once, so that "the goat" is clear."""
        counts = self.counts
        return [item for item in self.objects if counts[item.concept] == 1]

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Scene":
        """The inverse of ``to_json``."""
        return cls(
            key=row["key"],
            objects=tuple(SceneObject(**{**item, "box": tuple(item["box"])}) for item in row["objects"]),
            background=Background(**row["background"]),
            sign=Sign(**row["sign"]) if row["sign"] else None,
            held_out_pair=row["held_out_pair"],
        )
