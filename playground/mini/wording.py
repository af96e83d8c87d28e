"""English of the miniature: articles, plurals, numbers, lists and places."""

from collections.abc import Sequence

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

PLACES = (
    "top left", "top", "top right",
    "left", "center", "right",
    "bottom left", "bottom", "bottom right",
)  # fmt: skip
"""The nine places of a picture in reading order: index = 3 * row + column."""

LETTERS = "ABCD"

_IRREGULAR = {"scarf": "scarves", "potato": "potatoes"}


def a(noun: str) -> str:
    """The noun with its indefinite article: "an owl"."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """The plural of a noun phrase whose last word is the noun."""
    head, _, last = noun.rpartition(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith(("s", "x", "ch", "sh")):
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
    """A list in a sentence: "a", "a and b", "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def at(place: str) -> str:
    """The phrase for a place: "at the top left", "in the center", "on the left"."""
    if place == "center":
        return "in the center"
    return f"{'on' if place in ('left', 'right') else 'at'} the {place}"


def capital(sentence: str) -> str:
    """The sentence with its first letter in upper case."""
    return sentence[:1].upper() + sentence[1:]
