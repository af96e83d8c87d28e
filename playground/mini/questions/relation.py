"""Relations between two objects: left, right, above, below, larger.

Objects are compared by the row or column of their places: a relation is never a matter of a few pixels.
"""

import random
from dataclasses import dataclass

from playground.mini.layout import SIZES, Scene, SceneObject
from playground.mini.questions.base import Question, shuffled, wanted, yes_no
from playground.mini.questions.position import wrong_concepts
from playground.mini.wording import a, capital


@dataclass(frozen=True)
class Direction:
    """A side, its opposite, and the sign of the corresponding difference of rows or columns."""

    phrase: str
    opposite: str
    axis: str
    sign: int

    def holds(self, first: SceneObject, second: SceneObject) -> bool:
        """Whether ``first`` is on this side of ``second``."""
        return self.sign * (getattr(first, self.axis) - getattr(second, self.axis)) > 0


DIRECTIONS = (
    Direction("to the left of", "to the right of", "column", -1),
    Direction("to the right of", "to the left of", "column", 1),
    Direction("above", "below", "row", -1),
    Direction("below", "above", "row", 1),
)


def ordered_pairs(scene: Scene, direction: Direction) -> list[tuple[SceneObject, SceneObject]]:
    """Pairs (first, second) of objects with unambiguous names, ``first`` on that side of ``second``."""
    items = scene.unique_objects()
    return [(x, y) for x in items for y in items if direction.holds(x, y)]


def what_beside(scene: Scene, rng: random.Random) -> Question | None:
    """ "What is to the left of the goat?", where exactly one object is."""
    found = []
    for direction in DIRECTIONS:
        for item in scene.unique_objects():
            there = [other for other in scene.objects if direction.holds(other, item)]
            if len(there) == 1:
                found.append((direction, item, there[0]))
    if not found:
        return None
    direction, item, other = rng.choice(found)
    return Question(
        "what_beside",
        f"What is {direction.phrase} the {item.concept}?",
        other.concept,
        f"{capital(a(other.concept))} is {direction.phrase} the {item.concept}.",
        wrong_concepts(scene, rng, other.concept, named=item.concept),
    )


def is_beside(scene: Scene, rng: random.Random, answer: bool | None = None) -> Question | None:
    """ "Is the goat above the car?", yes/no; a "no" has them the other way round."""
    value = wanted(rng, answer)
    direction = rng.choice(DIRECTIONS)
    pairs = ordered_pairs(scene, direction)
    if not pairs:
        return None
    first, second = rng.choice(pairs)
    asked = direction.phrase if value else direction.opposite
    sentence = f"{yes_no(value)}, the {first.concept} is {direction.phrase} the {second.concept}."
    return Question("is_beside", f"Is the {first.concept} {asked} the {second.concept}?", yes_no(value), sentence)


def which_side(scene: Scene, rng: random.Random) -> Question | None:
    """ "Is the goat above or below the car?" """
    direction = rng.choice(DIRECTIONS)
    pairs = ordered_pairs(scene, direction)
    if not pairs:
        return None
    first, second = rng.choice(pairs)
    if direction.axis == "row":
        text = f"Is the {first.concept} above or below the {second.concept}?"
        answer, wrong = direction.phrase, direction.opposite
    else:
        text = f"Is the {first.concept} to the left or to the right of the {second.concept}?"
        answer, wrong = direction.phrase.split()[2], direction.opposite.split()[2]
    sentence = f"The {first.concept} is {direction.phrase} the {second.concept}."
    return Question("which_side", text, answer, sentence, (wrong,))


def which_larger(scene: Scene, rng: random.Random) -> Question | None:
    """ "Which is larger, the goat or the car?", for objects of different size classes."""
    items = scene.unique_objects()
    pairs = [(x, y) for x in items for y in items if SIZES[x.size] > SIZES[y.size]]
    if not pairs:
        return None
    larger, smaller = rng.choice(pairs)
    first, second = shuffled(rng, [larger.concept, smaller.concept])
    return Question(
        "which_larger",
        f"Which is larger in the picture, the {first} or the {second}?",
        larger.concept,
        f"The {larger.concept} is larger than the {smaller.concept}.",
        (smaller.concept,),
    )


def beside(scene: Scene, rng: random.Random) -> Question | None:
    """One of the relation questions."""
    for asker in rng.sample((what_beside, is_beside, which_side, which_larger), 4):
        question = asker(scene, rng)
        if question is not None:
            return question
    return None
