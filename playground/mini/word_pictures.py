"""Pictures in words: text-only conversations that teach a language model to look things up before it sees images.

Sixteen words take the positions of a picture's sixteen visual tokens: for each patch the object, the sign's word or the
background. A small language model that has answered questions about them only needs to learn what visual tokens mean; a
public one has such abilities from its own pretraining.
"""

import random
from collections.abc import Iterator
from typing import Any

from playground.mini.annotations import (
    ask,
    conversation,
    letter_turn,
    other_turns,
    what_turns,
    where_turns,
)
from playground.mini.layout import PATCHES, Scene
from playground.mini.prompts import short_turn
from playground.mini.questions.base import Asker
from playground.mini.questions.position import what_at, where
from playground.mini.questions.presence import presence, which_present
from playground.mini.scenes import make_imagined_scene
from playground.mini.wording import PLACES, SIDE

BACKGROUND = "background"

PRESENCES = 3
"""Number of "Is there a ...?" questions per scene; half of the answers are "No"."""

LETTER_ASKERS: tuple[tuple[Asker, int], ...] = ((which_present, 1), (what_at, 1), (where, 1))
"""Question kinds for the letter questions: letters are learnt last, and from easy questions."""


def word_picture(scene: Scene) -> str:
    """The scene as one word per patch in reading order, each with a leading space: " goat goat background ..."."""
    words = {item.place: item.concept.split()[-1] for item in scene.objects}
    if scene.sign is not None:
        words[scene.sign.place] = scene.sign.word
    width = PATCHES // SIDE
    cells = [
        words.get(PLACES[SIDE * (row // width) + column // width], BACKGROUND)
        for row in range(PATCHES)
        for column in range(PATCHES)
    ]
    return "".join(f" {word}" for word in cells)


def word_samples(seed: int, start: int, stop: int) -> Iterator[dict[str, Any]]:
    """Conversations about generated scenes: what is where, where is what, what is there, the sign, and two letter
    questions.

    Args:
        seed: Random seed of the scenes.
        start, stop: Indices of the first scene and of the one after the last.
    """
    for index in range(start, stop):
        key = f"{seed}/words/{index}"
        scene, rng = make_imagined_scene(key), random.Random(key)
        picture = word_picture(scene)
        turns = what_turns(scene) + where_turns(scene)
        turns += [short_turn(presence(scene, rng)) for _ in range(PRESENCES)] + other_turns(scene, rng)
        turns.append(letter_turn(ask(scene, rng, set(), LETTER_ASKERS, choice=True), rng, options=(2,)))
        for number, (question, answer) in enumerate(turns):
            yield conversation(f"mini_words_{index:06d}_{number}", [(f"{picture}\n{question}", answer)], None)
