"""The wording of prompts: LLaVA's suffixes, lettered options, ScienceQA's and TextVQA's forms."""

import random
from collections.abc import Sequence

from playground.mini.questions.base import LETTER_SUFFIX, SHORT_SUFFIX, Choice, Question
from playground.mini.wording import LETTERS

Turn = tuple[str, str]
"""The user's text and the assistant's answer."""


def short_turn(question: Question) -> Turn:
    """The question with the short-answer suffix, and its short answer."""
    return question.text + SHORT_SUFFIX, question.answer


def sentence_turn(question: Question) -> Turn:
    """The bare question, answered in a sentence."""
    return question.text, question.sentence


def ocr_question(question: Question, tokens: Sequence[str]) -> str:
    """A question as in TextVQA's file: with OCR guesses and the short-answer suffix."""
    return f"{question.text}\nReference OCR token: {', '.join(tokens)}{SHORT_SUFFIX}"


def lettered(choice: Choice, hint: str = "") -> str:
    """Hint, question and lettered options, one per line (MMBench's format), without the suffix."""
    options = [f"{letter}. {option}" for letter, option in zip(LETTERS, choice.options, strict=False)]
    return "\n".join([hint] * bool(hint) + [choice.text, *options])


def science(choice: Choice, context: str = "N/A") -> str:
    """Context, question and options in ScienceQA's format, without the suffix."""
    options = " ".join(f"({letter}) {option}" for letter, option in zip(LETTERS, choice.options, strict=False))
    return f"Context: {context}\nQuestion: {choice.text}\nOptions: {options}"


def choice_turn(choice: Choice, rng: random.Random, context: str = "N/A", hint: str = "") -> Turn:
    """A multiple-choice turn answered by letter, in either format; in ScienceQA's if there is a context."""
    if context != "N/A" or rng.random() < 0.35:
        return science(choice, context) + LETTER_SUFFIX, choice.letter
    return lettered(choice, hint) + LETTER_SUFFIX, choice.letter
