"""Generate training and held-out scenes from seeds, and draw them.

``make_scene(seed, split, index)`` always gives the same scene. Training scenes never contain both concepts of a
held-out pair (``concepts.is_held_out``); test scenes use other random streams, and some contain such a pair.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Literal

from llava.errors import InputError
from playground.mini.concepts import (
    categories,
    concept,
    concepts,
    contains_held_out_pair,
    held_out_partners,
    share_of_colour,
)
from playground.mini.layout import SIZES, Background, Box, Scene, SceneObject, Sign
from playground.mini.render import COLOURS, PLATES, render
from playground.mini.wording import PLACES, SIDE

__all__ = [
    "SIGN_WORDS",
    "Scene",
    "SceneObject",
    "Sign",
    "make_imagined_scene",
    "make_scene",
    "make_scenes",
    "render",
]

Split = Literal["train", "pretrain", "test"]

SIGN_WORDS = (
    "OPEN", "EXIT", "STOP", "CAFE", "SALE", "ZOO", "GYM", "BAR",
)  # fmt: skip

BACKGROUND_KINDS = ("plain", "gradient", "striped", "speckled")
SIGN_SHARE = 0.35
HELD_OUT_SHARE = 0.3
MAX_OVERLAP = 0.1
SAME_CATEGORY_SHARE = 0.3
REPEAT_SHARE = 0.12
MAX_CAMOUFLAGE = 0.35
"""Maximum share of an object's pixels with nearly the background's colour."""

_COUNTS = {False: ((1, 2, 3, 4), (10, 28, 34, 28)), True: ((1, 2, 3), (15, 45, 40))}


def make_scenes(seed: int, split: Split, number: int, start: int = 0) -> Iterator[Scene]:
    """``number`` scenes of a split from index ``start`` on."""
    return (make_scene(seed, split, index) for index in range(start, start + number))


def make_scene(seed: int, split: Split, index: int) -> Scene:
    """The scene at ``index`` of a split: one to four objects at known places, a background, and possibly a sign.

    Raises:
        InputError: The split is unknown.
    """
    if split not in ("train", "pretrain", "test"):
        raise InputError(f"unknown split {split!r}; expected train, pretrain or test")
    return _first_scene(f"{seed}/{split}/{index}", test=split == "test")


def make_imagined_scene(key: str) -> Scene:
    """A scene for text alone: drawn like a training scene, but never rendered or used for annotations."""
    return _first_scene(key, test=False)


def _first_scene(key: str, test: bool) -> Scene:
    """Retry until a scene is valid."""
    rng = random.Random(key)
    while True:
        scene = _try_scene(rng, key, test)
        if scene is not None:
            return scene


def _try_scene(rng: random.Random, key: str, test: bool) -> Scene | None:
    """One attempt; None if the objects cannot be placed or would be invisible."""
    sign = None
    if rng.random() < SIGN_SHARE:
        sign = Sign(rng.choice(SIGN_WORDS), rng.choice(PLACES), rng.choice(list(PLATES)))
    number = rng.choices(*_COUNTS[sign is not None])[0]
    names = _draw_concepts(rng, number, with_held_out_pair=test and rng.random() < HELD_OUT_SHARE)
    objects = _place(rng, names, sign)
    background = _choose_background(rng, names, sign)
    if objects is None or background is None:
        return None
    return Scene(key, objects, background, sign, contains_held_out_pair(names))


def _draw_concepts(rng: random.Random, number: int, with_held_out_pair: bool) -> list[str]:
    """Concepts drawn by frequency, with some repeats and some of the same category."""
    everything = list(concepts())
    names = [_weighted(rng, everything)]
    if with_held_out_pair:
        partners = sorted(held_out_partners(names[0]))
        if partners:
            names.append(_weighted(rng, partners))
    while len(names) < number:
        chance = rng.random()
        if chance < REPEAT_SHARE:
            names.append(rng.choice(names))
            continue
        pool: Sequence[str] = everything
        if chance < REPEAT_SHARE + SAME_CATEGORY_SHARE:
            pool = categories()[concept(rng.choice(names)).category]
        barred = held_out_partners(names[0]).union(names, *(held_out_partners(name) for name in names[1:]))
        allowed = [name for name in pool if name not in barred]
        if allowed:
            names.append(_weighted(rng, allowed))
    rng.shuffle(names)
    return names


def _weighted(rng: random.Random, names: Sequence[str]) -> str:
    return rng.choices(names, [concept(name).weight for name in names])[0]


def _overlap(first: Box, second: Box) -> float:
    """Area shared by two boxes, as a fraction of the smaller one."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = min((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return width * height / area


def _place(rng: random.Random, names: Sequence[str], sign: Sign | None) -> tuple[SceneObject, ...] | None:
    """Give every concept a place, a size and a box; None if they do not fit."""
    taken = [sign.box] if sign else []
    free = [place for place in PLACES if sign is None or place != sign.place]
    objects: list[SceneObject] = []
    for name in names:
        for _ in range(12):
            place, size = rng.choice(free), rng.choice(list(SIZES))
            box = _jittered_box(rng, place, SIZES[size])
            if all(_overlap(box, other) <= MAX_OVERLAP for other in taken):
                break
        else:
            return None
        free.remove(place)
        taken.append(box)
        objects.append(SceneObject(name, place, size, box))
    return tuple(sorted(objects, key=lambda item: PLACES.index(item.place)))


def _jittered_box(rng: random.Random, place: str, side: float) -> Box:
    """A square box near the middle of a place, inside the picture."""
    row, column = divmod(PLACES.index(place), SIDE)
    corners = []
    for cell in (column, row):
        centre = (cell + 0.5) / SIDE + rng.uniform(-0.03, 0.03)
        corners.append(min(max(centre - side / 2, 0.0), 1.0 - side))
    left, top = corners
    return (round(left, 4), round(top, 4), round(left + side, 4), round(top + side, 4))


def _choose_background(rng: random.Random, names: Sequence[str], sign: Sign | None) -> Background | None:
    """A background that contrasts with every object; None if there is none."""
    colours = [
        name
        for name, colour in COLOURS.items()
        if (sign is None or name != sign.colour) and all(share_of_colour(n, colour) < MAX_CAMOUFLAGE for n in names)
    ]
    if not colours:
        return None
    return Background(rng.choice(BACKGROUND_KINDS), rng.choice(colours), rng.randrange(2**31))
