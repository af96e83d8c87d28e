"""The content of a scene: objects, sign and background, as plain data that can be written to JSON and read back."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from playground.mini.concepts import concept
from playground.mini.wording import PLACES, SIDE

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, each as a fraction of the picture's side."""

PATCHES = 4
"""Number of patches along a side of a picture: two for each place."""

SIZES = {"small": 0.3, "medium": 0.38, "large": 0.46}
"""Side of an object's box as a fraction of the picture's side (24, 30 and 37 px of 80)."""


@dataclass(frozen=True)
class SceneObject:
    """One object: its concept, its place (the nearest one, and the exact box) and its size."""

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
        """0 top, 1 bottom."""
        return PLACES.index(self.place) // SIDE

    @property
    def column(self) -> int:
        """0 left, 1 right."""
        return PLACES.index(self.place) % SIDE


@dataclass(frozen=True)
class Sign:
    """A plate with a word at one of the places."""

    word: str
    place: str
    colour: str

    @property
    def box(self) -> Box:
        """Where the plate is."""
        row, column = divmod(PLACES.index(self.place), SIDE)
        return (column / SIDE + 0.015, row / SIDE + 0.09, column / SIDE + 0.485, row / SIDE + 0.41)


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
        """The objects whose concept occurs once, so that "the goat" is unambiguous."""
        counts = self.counts
        return [item for item in self.objects if counts[item.concept] == 1]
