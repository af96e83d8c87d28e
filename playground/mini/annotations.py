"""LLaVA conversations about scenes: captions for pretraining and the mix for fine-tuning."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

from playground.mini.layout import Scene
from playground.mini.prompts import Turn, choice_turn, ocr_question, sentence_turn, short_turn
from playground.mini.questions.background import about_background, background_colour
from playground.mini.questions.base import LETTER_SUFFIX, SHORT_SUFFIX, Asker, Question, as_choice
from playground.mini.questions.category import about_category, place_of_category
from playground.mini.questions.counting import count_things, is_count, is_sum, sum_of_counts
from playground.mini.questions.describe import DETAIL_REQUESTS, SHORT_REQUESTS, caption, compact, describe
from playground.mini.questions.facts import any_fact, which_is_choice
from playground.mini.questions.position import what_at, where
from playground.mini.questions.presence import both, presence, which_present
from playground.mini.questions.relation import beside
from playground.mini.questions.signs import about_sign, ocr_tokens, read_sign
from playground.mini.scenes import make_imagined_scene
from playground.mini.wording import at

CAPTION_SHARE = 0.1
"""Share of the pretraining scenes that have a caption of the whole picture."""

BACKGROUND_SHARE = 0.15
"""Share of the pretraining scenes with a question about the background."""

WHERE_SHARE = 0.25
"""Share of a pretraining scene's objects with a question about their place."""

PRESENCES = 2
"""Number of "Is there a ...?" questions for a pretraining scene; half of the answers are "No"."""

DESCRIPTION_SHARE = 0.08
"""Share of the fine-tuning samples that are detailed descriptions; a scene has at most one."""

OTHER_KINDS = {"text": 3, "short answers": 64, "letters": 20, "sentences": 5, "mixed": 6, "single": 2}
"""The other samples by kind, in percent. As in LLaVA's own mix, some have several turns about one picture, with the
suffix that asks for short answers or letters only in the first turn."""

TURNS = (1, 1, 2, 3)
"""Numbers of turns of such a conversation. A language model this small learns to look up a place from the distance
between a question and its picture, which is the same in every first turn: many short conversations teach this, a few
long ones do not."""

OPTIONS = (2, 2, 2, 3, 4)
"""Numbers of options in a multiple-choice question."""

SHORT_SHARE = 0.7
"""Share of questions that ask for a single word or phrase; the others are answered in a sentence."""

OCR_SHARE = 0.4
"""Share of the sign questions with OCR guesses in the prompt, as in TextVQA."""

HINT_SHARE = 0.15
"""Share of the multiple-choice questions with a hint first, as some MMBench questions have."""

ASKERS: tuple[tuple[Asker, int], ...] = (
    (what_at, 20),
    (where, 6),
    (count_things, 6),
    (presence, 20),
    (beside, 6),
    (about_sign, 8),
    (about_category, 12),
    (place_of_category, 2),
    (about_background, 4),
    (both, 4),
    (is_count, 2),
    (sum_of_counts, 1),
    (is_sum, 1),
)
"""Questions about a picture and how often each is asked."""

CHOICE_ASKERS: tuple[tuple[Asker, int], ...] = (*ASKERS, (which_present, 5))


def pretraining_samples(scene: Scene, image: str, identifier: str) -> Iterator[dict[str, Any]]:
    """For some scenes a caption in the format of LLaVA's 558k pretraining file, and for all scenes grounded questions:
    what is where, what is there, sometimes where something is, the sign, some backgrounds.

    The questions teach the names of objects and where to look, with two supervised tokens each. Models this small learn
    that from many such questions and from little else.
    """
    rng = random.Random(f"caption/{scene.key}")
    request, text = rng.choice(SHORT_REQUESTS), caption(scene, rng)
    if rng.random() < CAPTION_SHARE:
        yield conversation(identifier, [(with_image(request), text)], image)
    for index, (question, answer) in enumerate(grounded_turns(scene, rng)):
        yield conversation(f"{identifier}_{index}", [(with_image(question), answer)], image)


def grounded_turns(scene: Scene, rng: random.Random) -> list[Turn]:
    """Single questions about a stage-1 picture."""
    where = [turn for turn in where_turns(scene) if rng.random() < WHERE_SHARE]
    there = [short_turn(presence(scene, rng)) for _ in range(PRESENCES)]
    return [*what_turns(scene), *where, *there, *other_turns(scene, rng)]


def what_turns(scene: Scene) -> list[Turn]:
    """A "What is at ...?" question for each object."""
    return [(f"What is {at(item.place)}?{SHORT_SUFFIX}", item.concept) for item in scene.objects]


def where_turns(scene: Scene) -> list[Turn]:
    """A "Where is ...?" question for each object whose concept occurs once."""
    return [(f"Where is the {item.concept}?{SHORT_SUFFIX}", item.place) for item in scene.unique_objects()]


def other_turns(scene: Scene, rng: random.Random) -> list[Turn]:
    """The sign, if there is one, and for some scenes the background."""
    turns = []
    sign = read_sign(scene, rng)
    if sign is not None:
        turns.append(_answer(scene, sign, rng, short_share=1.0))
    if rng.random() < BACKGROUND_SHARE:
        turns.append(short_turn(background_colour(scene, rng)))
    return turns


def finetuning_samples(scene: Scene, image: str, identifier: str, number: int) -> Iterator[dict[str, Any]]:
    """``number`` samples about one scene: at most one is a description, and no question is repeated."""
    rng = random.Random(f"finetune/{scene.key}")
    asked: set[str] = set()
    kinds = [rng.choices(list(OTHER_KINDS), list(OTHER_KINDS.values()))[0] for _ in range(number)]
    if rng.random() < DESCRIPTION_SHARE * number:
        kinds[rng.randrange(number)] = "description"
    for position, kind in enumerate(kinds):
        name = f"{identifier}_{position}"
        if kind == "text":
            yield conversation(name, [text_turn(rng, f"premise/{scene.key}/{position}")], None)
        else:
            turns = _turns(kind, scene, rng, asked)
            yield conversation(name, [(with_image(turns[0][0]), turns[0][1]), *turns[1:]], image)


def _turns(kind: str, scene: Scene, rng: random.Random, asked: set[str]) -> list[Turn]:
    if kind == "description":
        return [(rng.choice(DETAIL_REQUESTS), describe(scene, rng))]
    number = 1 if kind == "single" else rng.choice(TURNS)
    if kind == "letters":
        return without_later_suffixes([_letter_answer(scene, rng, asked) for _ in range(number)])
    if kind == "sentences":
        return [sentence_turn(ask(scene, rng, asked)) for _ in range(number)]
    if kind == "short answers":
        return without_later_suffixes(
            [_answer(scene, ask(scene, rng, asked), rng, short_share=1.0) for _ in range(number)]
        )
    return [
        _letter_answer(scene, rng, asked) if rng.random() < 0.2 else _answer(scene, ask(scene, rng, asked), rng)
        for _ in range(number)
    ]


def without_later_suffixes(turns: list[Turn]) -> list[Turn]:
    """The turns, with the suffix that sets the answer format only in the first."""
    later = [(text.removesuffix(SHORT_SUFFIX).removesuffix(LETTER_SUFFIX), answer) for text, answer in turns[1:]]
    return [turns[0], *later]


def _letter_answer(scene: Scene, rng: random.Random, asked: set[str]) -> Turn:
    """A multiple-choice turn about the picture, sometimes with a hint."""
    hint = objects_hint(scene) if rng.random() < HINT_SHARE else ""
    question = ask(scene, rng, asked, CHOICE_ASKERS, choice=True)
    return letter_turn(question, rng, hint=hint if not question.kind.startswith("count") else "")


def text_turn(rng: random.Random, key: str) -> Turn:
    """A turn without a picture: a fact, or a question about a scene in words (``key`` seeds that scene)."""
    chance = rng.random()
    if chance < 0.5:
        question = any_fact(rng)
        return short_turn(question) if rng.random() < SHORT_SHARE else sentence_turn(question)
    if chance < 0.7:
        return letter_turn(which_is_choice(rng), rng)
    scene = make_imagined_scene(key)
    return letter_turn(ask(scene, rng, set(), CHOICE_ASKERS, choice=True), rng, context=compact(scene))


def objects_hint(scene: Scene) -> str:
    """The hint that goes before some multiple-choice questions."""
    number = len(scene.objects)
    return f"There {'is' if number == 1 else 'are'} {number} object{'' if number == 1 else 's'} in the picture."


def ask(
    scene: Scene,
    rng: random.Random,
    asked: set[str],
    askers: tuple[tuple[Asker, int], ...] = ASKERS,
    choice: bool = False,
) -> Question:
    """Ask for a fact that is not in ``asked`` yet; with ``choice``, only questions with wrong answers are used."""
    functions, weights = zip(*askers, strict=True)
    for attempt in range(200):
        question = rng.choices(functions, weights)[0](scene, rng)
        # Scenes with one object run out of questions: after many attempts a repeat is accepted.
        if question is None or (choice and not question.wrong):
            continue
        fact = f"{question.kind}: {question.sentence}"
        if fact not in asked or attempt > 100:
            asked.add(fact)
            return question
    raise AssertionError(f"no question can be asked about scene {scene.key}")


def _answer(scene: Scene, question: Question, rng: random.Random, short_share: float = SHORT_SHARE) -> Turn:
    """The turn for a question: with the short-answer suffix a short answer, otherwise a sentence."""
    if question.kind in ("read_sign", "first_letter") and rng.random() < OCR_SHARE:
        return ocr_question(question, ocr_tokens(scene, rng)), question.answer
    return short_turn(question) if rng.random() < short_share else sentence_turn(question)


def letter_turn(
    question: Question,
    rng: random.Random,
    context: str = "N/A",
    hint: str = "",
    options: Sequence[int] = OPTIONS,
) -> Turn:
    """A multiple-choice turn for a question, with one of these numbers of options, answered with a letter."""
    choice = as_choice(question, rng, rng.choice(options))
    if choice is None:
        raise AssertionError(f"{question} has no wrong answers to choose from")
    return choice_turn(choice, rng, context, hint)


def with_image(text: str) -> str:
    """The text with the image marker first, where LLaVA's preprocessing and evaluation put it."""
    return f"<image>\n{text}"


def conversation(identifier: str, turns: list[Turn], image: str | None) -> dict[str, Any]:
    """One entry of a LLaVA training file; ``image`` is relative to the image folder; None for text only."""
    said = [
        {"from": speaker, "value": value}
        for human, answer in turns
        for speaker, value in (("human", human), ("gpt", answer))
    ]
    head = {"id": identifier} if image is None else {"id": identifier, "image": image}
    return {**head, "conversations": said}
