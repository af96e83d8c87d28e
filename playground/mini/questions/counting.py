"""How many: of a category, of a concept, in all."""

import random

from playground.mini.concepts import categories
from playground.mini.layout import Scene
from playground.mini.questions.base import Question, shuffled, wanted, yes_no
from playground.mini.questions.presence import STRATEGIES, absent_concepts
from playground.mini.wording import NUMBERS, capital, count, plural


def count_things(scene: Scene, rng: random.Random) -> Question:
    """One of the counting questions below, weighted by how much they require looking at the picture."""
    return rng.choices((count_category, count_concept, count_objects), (4, 3, 3))[0](scene, rng)


def count_category(scene: Scene, rng: random.Random) -> Question:
    """ "How many animals are there in the picture?"; some questions ask for what is not there."""
    counts = scene.category_counts
    if rng.random() < 0.15:
        category = rng.choice([name for name in categories() if name not in counts])
    else:
        category = rng.choice(list(counts))
    return _question("count_category", category, counts[category])


def count_concept(scene: Scene, rng: random.Random) -> Question:
    """ "How many goats are there in the picture?"; a concept that occurs several times is preferred."""
    counts = scene.counts
    if rng.random() < 0.15:
        return _question("count_concept", absent_concepts(scene, rng, rng.choice(STRATEGIES))[0], 0)
    repeated = [name for name, number in counts.items() if number > 1]
    name = rng.choice(repeated if repeated and rng.random() < 0.8 else list(counts))
    return _question("count_concept", name, counts[name])


def count_objects(scene: Scene, rng: random.Random) -> Question:
    """ "How many objects are there in the picture?"; a sign is not an object."""
    question = _question("count_objects", "object", len(scene.objects))
    if scene.sign is None:
        return question
    text = "How many objects are there in the picture, not counting the sign?"
    return Question(question.kind, text, question.answer, question.sentence, question.wrong)


def _question(kind: str, noun: str, number: int) -> Question:
    verb = "is" if number == 1 else "are"
    wrong = sorted((n for n in range(0, 7) if n != number), key=lambda n: (abs(n - number), n))[:3]
    return Question(
        kind,
        f"How many {plural(noun)} are there in the picture?",
        str(number),
        f"There {verb} {count(number, noun)} in the picture.",
        tuple(str(n) for n in wrong),
    )


def is_count(scene: Scene, rng: random.Random, answer: bool | None = None) -> Question:
    """ "Are there two animals in the picture?", yes/no; a "no" is off by one."""
    value = wanted(rng, answer)
    things = list(scene.category_counts.items())
    if scene.sign is None:
        things.append(("object", len(scene.objects)))
    # Prefer objects that occur several times: otherwise "is there one ..." would nearly always be true.
    several = [thing for thing in things if thing[1] > 1]
    noun, number = rng.choice(several if several and rng.random() < 0.8 else things)
    asked = number if value else (number + 1 if number == 1 or rng.random() < 0.5 else number - 1)
    verb = "Is" if asked == 1 else "Are"
    truth = f"there {'is' if number == 1 else 'are'} {count(number, noun)} in the picture."
    return Question(
        "is_count",
        f"{verb} there {count(asked, noun)} in the picture?",
        yes_no(value),
        f"{yes_no(value)}, {truth}",
    )


def is_sum(scene: Scene, rng: random.Random, answer: bool | None = None) -> Question | None:
    """ "Are there three animals and vehicles together?", yes/no; a "no" is off by one."""
    question = sum_of_counts(scene, rng)
    if question is None:
        return None
    value, total = wanted(rng, answer), int(question.answer)
    asked = total if value else total + (1 if total == 2 else rng.choice((-1, 1)))
    nouns = question.text.removeprefix("How many ").removesuffix(" are there together?")
    text = f"Are there {NUMBERS[asked]} {nouns} together?"
    return Question("is_sum", text, yes_no(value), f"{yes_no(value)}, the sum is {total}.")


def sum_of_counts(scene: Scene, rng: random.Random) -> Question | None:
    """ "How many animals and vehicles are there together?", two categories that both occur."""
    counts = scene.category_counts
    if len(counts) < 2:
        return None
    first, second = shuffled(rng, list(counts))[:2]
    total = counts[first] + counts[second]
    text = f"How many {plural(first)} and {plural(second)} are there together?"
    wrong = sorted((n for n in range(1, 7) if n != total), key=lambda n: (abs(n - total), n))[:3]
    sentence = capital(f"{count(counts[first], first)} and {count(counts[second], second)} make {total}.")
    return Question("sum_of_counts", text, str(total), sentence, tuple(str(n) for n in wrong))
