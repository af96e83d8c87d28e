"""Text for pretraining the small language models: the miniature's language without its pictures.

Documents describe a scene in words and ask about it, so that a model learns the words, places, categories, letters and
counting before it sees a picture. The scenes are generated for this text; those of the annotations are not used.
"""

import random
from collections.abc import Iterator

from playground.mini.annotations import CHOICE_ASKERS, SHORT_SHARE, ask, letter_turn, text_turn
from playground.mini.layout import Scene
from playground.mini.prompts import Turn, sentence_turn, short_turn
from playground.mini.questions.describe import DETAIL_REQUESTS, SHORT_REQUESTS, caption, compact, describe
from playground.mini.scenes import make_imagined_scene


def documents(seed: int, start: int, stop: int) -> Iterator[str]:
    """The documents of a seed from index ``start`` to ``stop``."""
    for index in range(start, stop):
        yield _document(random.Random(f"{seed}/text/{index}"), f"{seed}/imagined/{index}")


def _document(rng: random.Random, key: str) -> str:
    if rng.random() < 0.2:
        return _layout("", [text_turn(rng, f"{key}/{turn}") for turn in range(4)], rng)
    scene = make_imagined_scene(key)
    if rng.random() < 0.2:
        return _description(scene, rng)
    asked: set[str] = set()
    turns = []
    for _ in range(rng.randrange(2, 6)):
        if rng.random() < 0.25:
            turns.append(letter_turn(ask(scene, rng, asked, CHOICE_ASKERS, choice=True), rng))
        else:
            question = ask(scene, rng, asked)
            turns.append(short_turn(question) if rng.random() < SHORT_SHARE else sentence_turn(question))
    premise = compact(scene) if rng.random() < 0.7 else describe(scene, rng)
    return _layout(premise, turns, rng)


def _description(scene: Scene, rng: random.Random) -> str:
    """Facts, a request, and the resulting description or caption."""
    if rng.random() < 0.75:
        turn = (rng.choice(DETAIL_REQUESTS), describe(scene, rng))
    else:
        turn = (rng.choice(SHORT_REQUESTS), caption(scene, rng))
    return _layout(compact(scene), [turn], rng)


def _layout(premise: str, turns: list[Turn], rng: random.Random) -> str:
    """Premise and turns as a chat (USER, ASSISTANT) or as questions and answers."""
    if rng.random() < 0.6:
        said = [f"USER: {question} ASSISTANT: {answer}" for question, answer in turns]
        if premise:
            said[0] = f"USER: {premise}\n{said[0].removeprefix('USER: ')}"
        return " ".join(said)
    return "\n".join([premise] * bool(premise) + [f"Q: {question}\nA: {answer}" for question, answer in turns])
