"""English wording in the miniature: articles, plurals, numbers, lists and places."""

from collections.abc import Sequence

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

SIDE = 2
"""Places along a side of a picture."""

PLACES = ("top left", "top right", "bottom left", "bottom right")
"""The places of a picture in reading order: index = SIDE * row + column."""

LETTERS = "ABCD"


def a(noun: str) -> str:
    """The noun with its indefinite article: "an owl"."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """The plural of a noun phrase whose last word is the noun."""
    head, _, last = noun.rpartition(" ")
    if last.endswith(("s", "x", "ch", "sh", "to")):
        last += "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "s"
    return f"{head} {last}".strip()


def count(number: int, noun: str) -> str:
    """A number of things: "no dogs", "one dog", "two dogs"."""
    if number == 0:
        return f"no {plural(noun)}"
    return f"{NUMBERS[number]} {noun if number == 1 else plural(noun)}"


def listing(items: Sequence[str]) -> str:
    """A list as part of a sentence: "a", "a and b", "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def at(place: str) -> str:
    """The phrase for a place: "at the top left"."""
    return f"at the {place}"


def capital(sentence: str) -> str:
    """The sentence with its first letter in upper case."""
    return sentence[:1].upper() + sentence[1:]
