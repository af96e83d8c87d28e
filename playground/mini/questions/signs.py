"""Reading the sign."""

import random

from playground.mini.layout import Scene
from playground.mini.questions.base import Question, shuffled, wanted, yes_no
from playground.mini.render import PLATES
from playground.mini.scenes import SIGN_WORDS
from playground.mini.wording import PLACES, at


def read_sign(scene: Scene, rng: random.Random) -> Question | None:
    """ "What does the sign say?" """
    if scene.sign is None:
        return None
    word = scene.sign.word
    text = rng.choice(("What does the sign say?", "What word is on the sign?", "What is written on the sign?"))
    wrong = [other for other in shuffled(rng, SIGN_WORDS) if other != word]
    # Words of the same length first: they are the harder wrong answers.
    wrong.sort(key=lambda other: len(other) != len(word))
    return Question("read_sign", text, word, f"The sign says {word}.", tuple(wrong[:3]))


def first_letter(scene: Scene, rng: random.Random) -> Question | None:
    """ "What is the first letter on the sign?" """
    if scene.sign is None:
        return None
    word = scene.sign.word
    wrong = shuffled(rng, sorted({other[0] for other in SIGN_WORDS} - {word[0]}))[:3]
    text = "What is the first letter on the sign?"
    return Question("first_letter", text, word[0], f"The first letter of {word} is {word[0]}.", tuple(wrong))


def ocr_tokens(scene: Scene, rng: random.Random) -> list[str]:
    """Uncertain OCR guesses: the sign's word and three others of the list, shuffled."""
    word = scene.sign.word if scene.sign else ""
    others = [other for other in shuffled(rng, SIGN_WORDS) if other != word]
    return shuffled(rng, [word, *sorted(others, key=lambda other: len(other) != len(word))[:3]])


def sign_says(scene: Scene, rng: random.Random, answer: bool | None = None) -> Question | None:
    """ "Is the word on the sign "OPEN"?", yes/no."""
    if scene.sign is None:
        return None
    value, word = wanted(rng, answer), scene.sign.word
    asked = word if value else rng.choice([other for other in SIGN_WORDS if other != word])
    text = f'Is the word on the sign "{asked}"?'
    return Question("sign_says", text, yes_no(value), f"{yes_no(value)}, the sign says {word}.")


def sign_colour(scene: Scene, rng: random.Random) -> Question | None:
    """ "What color is the sign?" """
    if scene.sign is None:
        return None
    colour = scene.sign.colour
    wrong = [other for other in shuffled(rng, list(PLATES)) if other != colour][:3]
    return Question("sign_colour", "What color is the sign?", colour, f"The sign is {colour}.", tuple(wrong))


def sign_place(scene: Scene, rng: random.Random) -> Question | None:
    """ "Where is the sign?" """
    if scene.sign is None:
        return None
    place = scene.sign.place
    wrong = tuple(other for other in shuffled(rng, PLACES) if other != place)
    return Question("sign_place", "Where is the sign?", place, f"The sign is {at(place)}.", wrong)


def about_sign(scene: Scene, rng: random.Random) -> Question | None:
    """Mostly reading, sometimes colour, place or yes/no."""
    return rng.choices((read_sign, first_letter, sign_says, sign_colour, sign_place), (6, 1, 2, 1, 1))[0](scene, rng)
