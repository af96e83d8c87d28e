"""Descriptions: a one-sentence caption, a statement of all facts, and a detailed description of several sentences."""

import random
from collections.abc import Sequence

from playground.mini.layout import Scene, SceneObject, Sign
from playground.mini.questions.relation import DIRECTIONS
from playground.mini.wording import NUMBERS, PLACES, a, at, capital, count, listing

MIN_WORDS = 40
"""Minimum number of words in a detailed description."""

SHORT_REQUESTS = (
    "Describe the picture briefly.",
    "Give a short caption for this image.",
    "Summarize the image in one sentence.",
    "What does this picture show?",
)
DETAIL_REQUESTS = (
    "Describe the picture in detail.",
    "What do you see in this picture? Describe everything.",
    "Give a detailed description of the image.",
    "Explain what is in the picture and where it is.",
)


def background_phrase(scene: Scene) -> str:
    """ "a striped blue background" """
    kind, colour = scene.background.kind, scene.background.colour
    return f"a {colour} gradient background" if kind == "gradient" else f"a {kind} {colour} background"


def _colour_phrase(scene: Scene) -> str:
    return f"a {scene.background.colour} background"


def caption(scene: Scene, rng: random.Random) -> str:
    """One sentence with the objects, half of the time with their places, and the background's colour."""
    if rng.random() < 0.5:
        things = listing([f"{a(item.concept)} {at(item.place)}" for item in scene.objects])
        text = f"{things}, on {_colour_phrase(scene)}"
    else:
        things = listing([a(name) if n == 1 else count(n, name) for name, n in scene.counts.items()])
        text = f"{things} on {_colour_phrase(scene)}"
    if scene.sign is not None:
        text += f", with a {scene.sign.colour} sign that says {scene.sign.word}"
    return capital(text) + "."


def compact(scene: Scene) -> str:
    """All facts of a scene in one or two sentences, as the premise of questions about text."""
    things = listing([f"a {item.size} {item.concept} {at(item.place)}" for item in scene.objects])
    text = f"The picture shows {things}, on {background_phrase(scene)}."
    if scene.sign is not None:
        text += f" {_sign_sentence(scene.sign)}"
    return text


def describe(scene: Scene, rng: random.Random) -> str:
    """Several sentences, 40 words or more: how many objects, sizes, places, sign, relations, totals."""
    style = rng.randrange(3)
    number = len(scene.objects)
    objects, background = count(number, "object"), background_phrase(scene)
    sentences = [
        (
            f"The picture shows {objects} on {background_phrase(scene)}.",
            f"There {'is' if number == 1 else 'are'} {objects} in this picture, on {background}.",
            f"This is a picture of {objects}. It has {background}.",
        )[style]
    ]
    sentences += [_object_sentence(item, style) for item in scene.objects]
    sentences.append("There is no sign." if scene.sign is None else _sign_sentence(scene.sign))
    sentences += _relation_sentences(scene)
    sentences.append(_totals_sentence(scene))
    sentences += _padding(scene, sentences)
    return " ".join(sentences)


def _object_sentence(item: SceneObject, style: int) -> str:
    thing, place = f"a {item.size} {item.concept}", at(item.place)
    return capital((f"{place} there is {thing}.", f"{thing} is {place}.", f"{place} I can see {thing}.")[style])


def _sign_sentence(sign: Sign) -> str:
    return f"A {sign.colour} sign {at(sign.place)} says {sign.word}."


def _relation_sentences(scene: Scene) -> list[str]:
    """Relations between neighbours in reading order, at most two sentences."""
    unique = scene.unique_objects()
    sentences = []
    for first, second in zip(unique, unique[1:], strict=False):
        for direction in DIRECTIONS:
            if direction.holds(first, second):
                sentences.append(f"The {first.concept} is {direction.phrase} the {second.concept}.")
                break
    return sentences[:2]


def _totals_sentence(scene: Scene) -> str:
    totals = [count(number, category) for category, number in scene.category_counts.items()]
    return f"In all there {'is' if totals[0].startswith('one ') else 'are'} {listing(totals)}."


def _padding(scene: Scene, sentences: Sequence[str]) -> list[str]:
    """True sentences that extend a short description to ``MIN_WORDS``."""
    extra: list[str] = []
    for item in scene.objects:
        extra.append(f"The {item.concept} {at(item.place)} is {a(item.category)}.")
    empty = len(PLACES) - len(scene.objects) - (scene.sign is not None)
    if empty:
        places = "place" if empty == 1 else f"{NUMBERS[empty]} places"
        extra.append(f"The other {places} of the picture show{'s' * (empty == 1)} only the background.")
    extra.append("Nothing else can be seen in the picture.")
    kept: list[str] = []
    for sentence in extra:
        if sum(len(s.split()) for s in (*sentences, *kept)) >= MIN_WORDS:
            break
        kept.append(sentence)
    return kept
