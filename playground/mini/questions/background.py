"""The background: its colour and its pattern."""

import random

from playground.mini.layout import Scene
from playground.mini.questions.base import Question, shuffled, wanted, yes_no
from playground.mini.render import COLOURS
from playground.mini.scenes import BACKGROUND_KINDS


def background_colour(scene: Scene, rng: random.Random) -> Question:
    """ "What color is the background?" """
    colour = scene.background.colour
    wrong = [other for other in shuffled(rng, list(COLOURS)) if other != colour][:3]
    return Question(
        "background_colour",
        "What color is the background?",
        colour,
        f"The background is {colour}.",
        tuple(wrong),
    )


def is_background_colour(scene: Scene, rng: random.Random, answer: bool | None = None) -> Question:
    """ "Is the background blue?", yes/no."""
    value, colour = wanted(rng, answer), scene.background.colour
    asked = colour if value else rng.choice([other for other in COLOURS if other != colour])
    sentence = f"{yes_no(value)}, the background is {colour}."
    return Question("is_background_colour", f"Is the background {asked}?", yes_no(value), sentence)


def background_pattern(scene: Scene, rng: random.Random) -> Question:
    """ "Is the background plain, striped, speckled or a gradient?" """
    kind = scene.background.kind
    wrong = tuple(other for other in shuffled(rng, BACKGROUND_KINDS) if other != kind)
    sentence = "The background is a gradient." if kind == "gradient" else f"The background is {kind}."
    return Question("background_pattern", "What kind of background is it?", kind, sentence, wrong)


def is_background_pattern(scene: Scene, rng: random.Random, answer: bool | None = None) -> Question:
    """ "Is the background striped?", yes/no."""
    value, kind = wanted(rng, answer), scene.background.kind
    asked = kind if value else rng.choice([other for other in BACKGROUND_KINDS if other != kind])
    phrase = "a gradient" if asked == "gradient" else asked
    truth = "a gradient" if kind == "gradient" else kind
    sentence = f"{yes_no(value)}, the background is {truth}."
    return Question("is_background_pattern", f"Is the background {phrase}?", yes_no(value), sentence)


def about_background(scene: Scene, rng: random.Random) -> Question:
    """One of the background questions."""
    askers = (background_colour, is_background_colour, background_pattern, is_background_pattern)
    return rng.choices(askers, (5, 2, 2, 1))[0](scene, rng)
