"""Categories seen in the picture: which animal, what kind of thing, is it a fruit."""

import random

from playground.mini.concepts import categories
from playground.mini.layout import Scene
from playground.mini.questions.base import Question, shuffled, wanted, yes_no
from playground.mini.wording import a, at, capital


def which_of_category(scene: Scene, rng: random.Random) -> Question | None:
    """ "Which animal is in the picture?", where there is exactly one; wrong answers are other animals."""
    single = [item for item in scene.objects if scene.category_counts[item.category] == 1]
    if not single:
        return None
    item = rng.choice(single)
    wrong = [name for name in shuffled(rng, categories()[item.category]) if name != item.concept][:3]
    sentence = f"The {item.category} in the picture is {a(item.concept)}."
    return Question(
        "which_of_category", f"Which {item.category} is in the picture?", item.concept, sentence, tuple(wrong)
    )


def category_at(scene: Scene, rng: random.Random) -> Question:
    """ "What kind of object is at the top left?": its category."""
    item = rng.choice(scene.objects)
    inside = [name for name in scene.category_counts if name != item.category]
    others = [name for name in categories() if name != item.category and name not in inside]
    wrong = shuffled(rng, inside)[:2] + shuffled(rng, others)
    return Question(
        "category_at",
        f"What kind of object is {at(item.place)} of the picture?",
        item.category,
        f"The {item.concept} {at(item.place)} is {a(item.category)}.",
        tuple(wrong[:3]),
    )


def is_category_at(scene: Scene, rng: random.Random, answer: bool | None = None) -> Question:
    """ "Is the object at the top left a fruit?", yes/no."""
    value, item = wanted(rng, answer), rng.choice(scene.objects)
    asked = item.category if value else rng.choice([name for name in categories() if name != item.category])
    sentence = f"{yes_no(value)}, the object {at(item.place)} is {a(item.concept)}, which is {a(item.category)}."
    return Question(
        "is_category_at",
        f"Is the object {at(item.place)} of the picture {a(asked)}?",
        yes_no(value),
        sentence,
    )


def about_category(scene: Scene, rng: random.Random) -> Question:
    """One of the category questions."""
    asker = rng.choice((which_of_category, category_at, is_category_at))
    return asker(scene, rng) or category_at(scene, rng)


def place_of_category(scene: Scene, rng: random.Random) -> Question | None:
    """ "Where is the animal?", where there is exactly one."""
    single = [item for item in scene.objects if scene.category_counts[item.category] == 1]
    if not single:
        return None
    item = rng.choice(single)
    return Question(
        "place_of_category",
        f"Where is the {item.category}?",
        item.place,
        capital(f"the {item.category} is {at(item.place)}: it is {a(item.concept)}."),
    )
