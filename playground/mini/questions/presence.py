"""Presence questions with random, popular and adversarial negatives, as in POPE."""

import random

from llava.errors import InputError
from playground.mini.concepts import categories, concepts
from playground.mini.layout import Scene
from playground.mini.questions.base import Question, shuffled, wanted, yes_no
from playground.mini.wording import a

STRATEGIES = ("random", "popular", "adversarial")
POPULAR = 15
"""Number of the most frequent concepts that count as popular."""


def absent_concepts(scene: Scene, rng: random.Random, strategy: str) -> list[str]:
    """Concepts that are not in the scene, in random order.

    Args:
        strategy: ``random``: any; ``popular``: the most frequent ones; ``adversarial``: those of a category that the
            scene shows, which often occur with its objects; any if it shows all categories.

    Raises:
        InputError: The strategy is unknown.
    """
    everything = concepts()
    if strategy == "random":
        pool = list(everything)
    elif strategy == "popular":
        pool = sorted(everything, key=lambda name: -everything[name].weight)[: POPULAR + len(scene.objects)]
    elif strategy == "adversarial":
        pool = [name for category in scene.category_counts for name in categories()[category]]
    else:
        raise InputError(f"unknown strategy {strategy!r} for negatives; expected one of {', '.join(STRATEGIES)}")
    absent = [name for name in pool if name not in scene.counts]
    return shuffled(rng, absent or [name for name in everything if name not in scene.counts])


def presence(scene: Scene, rng: random.Random, strategy: str | None = None, answer: bool | None = None) -> Question:
    """ "Is there a goat in the image?"; strategy and answer are drawn when not given."""
    value = wanted(rng, answer)
    if value:
        name = rng.choice(list(scene.counts))
    else:
        name = absent_concepts(scene, rng, strategy or rng.choice(STRATEGIES))[0]
    return _question(name, value)


def _question(name: str, value: bool) -> Question:
    sentence = f"Yes, there is {a(name)} in the image." if value else f"No, there is no {name} in the image."
    return Question("presence", f"Is there {a(name)} in the image?", yes_no(value), sentence)


def both(scene: Scene, rng: random.Random, answer: bool | None = None) -> Question | None:
    """ "Are there both a goat and a car in the image?"; a "no" has exactly one of the two."""
    present = shuffled(rng, list(scene.counts))
    value = wanted(rng, answer)
    if value and len(present) < 2:
        return None
    if value:
        pair = present[:2]
        sentence = f"Yes, there are both {a(pair[0])} and {a(pair[1])} in the image."
    else:
        missing = absent_concepts(scene, rng, rng.choice(STRATEGIES))[0]
        pair = shuffled(rng, [present[0], missing])
        sentence = f"No, there is {a(present[0])} but no {missing} in the image."
    return Question("both", f"Are there both {a(pair[0])} and {a(pair[1])} in the image?", yes_no(value), sentence)


def which_present(scene: Scene, rng: random.Random) -> Question:
    """ "Which of these is in the picture?", for multiple choice."""
    name = rng.choice(list(scene.counts))
    wrong = absent_concepts(scene, rng, "popular")[:1]
    wrong += [other for other in absent_concepts(scene, rng, "random") if other not in wrong][:2]
    return Question("which_present", "Which of these is in the picture?", name, f"There is {a(name)}.", tuple(wrong))
