"""What is at a place, and where an object is."""

import random

from playground.mini.layout import Scene
from playground.mini.questions.base import Question, shuffled
from playground.mini.questions.presence import absent_concepts
from playground.mini.wording import PLACES, a, at, capital


def what_at(scene: Scene, rng: random.Random) -> Question:
    """ "What is at the top left?" """
    item = rng.choice(scene.objects)
    place = at(item.place)
    text = "What is {}?"
    sentence = capital(f"{a(item.concept)} is {place}.")
    return Question("what_at", text.format(place), item.concept, sentence, wrong_concepts(scene, rng, item.concept))


def where(scene: Scene, rng: random.Random) -> Question | None:
    """ "Where is the goat?", for a concept that occurs once."""
    candidates = scene.unique_objects()
    if not candidates:
        return None
    item = rng.choice(candidates)
    text = "Where is the {}?"
    used = [other.place for other in scene.objects if other is not item]
    others = [place for place in PLACES if place != item.place and place not in used]
    wrong = shuffled(rng, used)[:2] + shuffled(rng, others)
    return Question(
        "where",
        text.format(item.concept),
        item.place,
        f"The {item.concept} is {at(item.place)}.",
        tuple(wrong[:3]),
    )


def wrong_concepts(scene: Scene, rng: random.Random, answer: str, named: str = "") -> tuple[str, ...]:
    """Three wrong answers for "which thing": up to two others in the scene, then absent ones.

    ``named`` is a concept that the question itself names, and is therefore an unlikely answer.
    """
    inside = [name for name in shuffled(rng, list(scene.counts)) if name not in (answer, named)][:2]
    similar = absent_concepts(scene, rng, "adversarial")[:1]
    rest = [name for name in absent_concepts(scene, rng, "random") if name not in similar]
    return tuple((inside + similar + rest)[:3])
