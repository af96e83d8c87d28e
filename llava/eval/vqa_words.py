"""Answer normalisation for VQA accuracy, as the M4C evaluator applies it to TextVQA.

The rules are those of the published evaluator, including its peculiarities, since they change scores:

* commas and question marks are deleted first, and ``'s`` becomes a separate word;
* a punctuation mark is deleted if it is next to a space anywhere in the answer, otherwise it becomes a space;
* a full stop is deleted unless a digit follows it, but only the first 32 are (the evaluator passes a regex flag of
  that value where the number of replacements is expected);
* number words up to ten become digits ("none" becomes 0), articles are dropped, and apostrophes of contractions are
  restored.
"""

import re

_NUMBERS = {"none": "0"} | {
    word: str(value) for value, word in enumerate("zero one two three four five six seven eight nine ten".split())
}
_ARTICLES = frozenset(("a", "an", "the"))
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_FULL_STOP = re.compile(r"\.(?!\d)")
_MOST_FULL_STOPS = 32

_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't
    must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've
    somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd
    something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're
    they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've
    who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll
    y'all'd've you'd you'd've you'll you're you've
""".split()
_IRREGULAR = {"somebody'd": "somebodyd"}
"""The published table has this one reversed."""


def _contractions() -> dict[str, str]:
    """Map from every contraction with one of its apostrophes missing to the full form."""
    table = dict(_IRREGULAR)
    for word in _CONTRACTED:
        for position in (index for index, letter in enumerate(word) if letter == "'"):
            table[word[:position] + word[position + 1 :]] = word
    return table


_CONTRACTIONS = _contractions()


def normalise(answer: str) -> str:
    """Normalise an answer for comparison."""
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    text = _strip_punctuation(text)
    words = [_NUMBERS.get(word, word) for word in text.split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _strip_punctuation(text: str) -> str:
    result = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if beside_space else " ")
    return _FULL_STOP.sub("", result, count=_MOST_FULL_STOPS)
