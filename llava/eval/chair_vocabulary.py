"""The objects that CHAIR looks for: their wordings, and where a text mentions them."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from llava.errors import InputError
from llava.files import read_json

_IRREGULAR = {
    "man": "men",
    "woman": "women",
    "child": "children",
    "person": "people",
    "mouse": "mice",
    "goose": "geese",
    "sheep": "sheep",
    "knife": "knives",
    "calf": "calves",
    "ox": "oxen",
}
_COMPOUNDS = ("man", "woman", "child")  # policeman, grandchild
_WORD = re.compile(r"[^\W_]+|[^\w\s'’-]")


def plural(wording: str) -> str:
    """The plural of an English noun phrase: of its last word, or of that before "of"; a plural stays as it is."""
    noun, of, rest = wording.partition(" of ")
    if of:
        return plural(noun) + of + rest
    head, _, last = wording.rpartition(" ")
    compound = next((end for end in _COMPOUNDS if last.endswith(end) and last != "human"), last)
    if compound in _IRREGULAR:
        last = last.removesuffix(compound) + _IRREGULAR[compound]
    elif last in _IRREGULAR.values() or (last.endswith("s") and not last.endswith(("ss", "us"))):
        pass
    elif last.endswith(("ss", "us", "x", "z", "ch", "sh")):
        last += "es"
    elif last.endswith("y") and last[-2:-1] not in tuple("aeiou"):
        last = last[:-1] + "ies"
    else:
        last += "s"
    return f"{head} {last}".strip()


class Vocabulary:
    """Objects by their wordings.

    Args:
        wordings: For each object all of its wordings, phrases of lower-case words, plurals included.
        others: Phrases that contain a wording and mean none of the objects ("train station").

    Raises:
        InputError: A wording has no letters, or belongs to two objects.
    """

    def __init__(self, wordings: Mapping[str, Iterable[str]], others: Iterable[str] = ()) -> None:
        self.objects = frozenset(wordings)
        self._phrases: dict[tuple[str, ...], str | None] = {tuple(words(phrase)): None for phrase in others}
        for name, phrases in wordings.items():
            for phrase in phrases:
                key = tuple(words(phrase))
                if not key:
                    raise InputError(f"{phrase!r}, a wording of {name!r}, has no letters")
                known = self._phrases.setdefault(key, name)
                if known != name:
                    raise InputError(f"{phrase!r} is a wording of {known!r} and of {name!r}; it must mean one object")
        self._longest = max(map(len, self._phrases), default=0)

    def mentions(self, text: str) -> list[str]:
        """The objects that a text names, in its order and as often as it names them; long phrases before short ones.

        Case does not matter, a hyphen parts words, and no phrase reaches over a punctuation mark.
        """
        found: list[str] = []
        tokens, start = words(text), 0
        while start < len(tokens):
            for length in range(min(self._longest, len(tokens) - start), 0, -1):
                phrase = tuple(tokens[start : start + length])
                if phrase in self._phrases:
                    name = self._phrases[phrase]
                    found += [name] if name is not None else []
                    start += length
                    break
            else:
                start += 1
        return found


def words(text: str) -> list[str]:
    """Words and punctuation marks in lower case; apostrophes and hyphens part words."""
    return _WORD.findall(text.lower())


def read_vocabulary(path: Path) -> Vocabulary:
    """A vocabulary from a JSON object: for each object the list of its further wordings (plurals, synonyms).

    Raises:
        InputError: The file is missing, has another form, or a wording belongs to two objects.
    """
    content = read_json(path)
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(each, list) and all(isinstance(word, str) for word in each) for each in content.values())
    ):
        raise InputError(f'{path}: expected an object of lists of wordings, such as {{"cat": ["cats", "kitten"]}}')
    try:
        return Vocabulary({name: [name, *further] for name, further in content.items()})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
