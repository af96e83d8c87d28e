"""Questions without a picture: categories, lists, counting and small sums."""

import random

from playground.mini.concepts import categories, concept, concepts
from playground.mini.questions.base import Question, shuffled, wanted, yes_no
from playground.mini.wording import NUMBERS, a, capital, count, listing, plural


def which_is(rng: random.Random) -> Question:
    """ "Which of these is a fruit: a goat, a car or a lemon?" """
    category = rng.choice(list(categories()))
    name = rng.choice(categories()[category])
    others = shuffled(rng, [other for other in concepts() if concept(other).category != category])[:3]
    listed = shuffled(rng, [name, *others[:2]])
    options = f"{a(listed[0])}, {a(listed[1])} or {a(listed[2])}"
    return Question(
        "which_is",
        f"Which of these is {a(category)}: {options}?",
        name,
        f"The {name} is {a(category)}.",
        tuple(others),
    )


def which_is_choice(rng: random.Random) -> Question:
    """ "Which of these is a fruit?", for multiple choice: the options are not in the question."""
    question = which_is(rng)
    return Question("which_is", question.text.split(":")[0] + "?", question.answer, question.sentence, question.wrong)


def kind_of(rng: random.Random) -> Question:
    """ "What kind of thing is a goat?" """
    name = rng.choice(list(concepts()))
    category = concept(name).category
    wrong = shuffled(rng, [other for other in categories() if other != category])[:3]
    text = f"What kind of thing is {a(name)}?"
    return Question("kind_of", text, category, f"{capital(a(name))} is {a(category)}.", tuple(wrong))


def is_a(rng: random.Random, answer: bool | None = None) -> Question:
    """ "Is a goat an animal?", yes/no."""
    name, value = rng.choice(list(concepts())), wanted(rng, answer)
    category = concept(name).category
    asked = category if value else rng.choice([other for other in categories() if other != category])
    sentence = f"{yes_no(value)}, {a(name)} is {a(category)}."
    return Question("is_a", f"Is {a(name)} {a(asked)}?", yes_no(value), sentence)


def same_kind(rng: random.Random, answer: bool | None = None) -> Question:
    """ "Are a goat and a cat the same kind of thing?", yes/no."""
    value, name = wanted(rng, answer), rng.choice(list(concepts()))
    same = [other for other in concepts() if (concept(other).category == concept(name).category) == value]
    other = rng.choice([candidate for candidate in same if candidate != name])
    kinds = f"{a(name)} is {a(concept(name).category)} and {a(other)} is {a(concept(other).category)}"
    text = f"Are {a(name)} and {a(other)} the same kind of thing?"
    return Question("same_kind", text, yes_no(value), f"{yes_no(value)}, {kinds}.")


def odd_one_out(rng: random.Random) -> Question:
    """ "Which one does not belong: ...?", three of one category and one of another."""
    category, other = rng.sample(list(categories()), 2)
    same, odd = shuffled(rng, categories()[category])[:3], rng.choice(categories()[other])
    listed = listing(shuffled(rng, [*same, odd]))
    sentence = f"The {odd} does not belong: the others are {plural(category)}."
    return Question("odd_one_out", f"Which one does not belong: {listed}?", odd, sentence, tuple(same))


def count_list(rng: random.Random) -> Question:
    """ "How many of these are animals: goat, cat, car?" """
    category = rng.choice(list(categories()))
    number, others = rng.randrange(0, 4), rng.randrange(1, 4)
    elsewhere = [name for name in concepts() if concept(name).category != category]
    names = shuffled(rng, shuffled(rng, categories()[category])[:number] + shuffled(rng, elsewhere)[:others])
    wrong = sorted((n for n in range(0, 6) if n != number), key=lambda n: (abs(n - number), n))[:3]
    return Question(
        "count_list",
        f"How many of these are {plural(category)}: {', '.join(names)}?",
        str(number),
        capital(f"{count(number, category)} {'is' if number == 1 else 'are'} in the list."),
        tuple(str(n) for n in wrong),
    )


def total(rng: random.Random) -> Question:
    """ "How many things are two goats and one car together?" """
    first, second = rng.sample(list(concepts()), 2)
    x, y = rng.randrange(1, 4), rng.randrange(1, 4)
    wrong = sorted((n for n in range(1, 9) if n != x + y), key=lambda n: (abs(n - x - y), n))[:3]
    return Question(
        "total",
        f"How many things are {count(x, first)} and {count(y, second)} together?",
        str(x + y),
        f"{count(x, first).capitalize()} and {count(y, second)} are {NUMBERS[x + y]} things.",
        tuple(str(n) for n in wrong),
    )


FACTS = (which_is, kind_of, is_a, same_kind, odd_one_out, count_list, total)


def any_fact(rng: random.Random) -> Question:
    """One of the questions without a picture."""
    return rng.choice(FACTS)(rng)
