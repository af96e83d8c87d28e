"""Questions, and how to turn them into multiple-choice questions."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from playground.mini.layout import Scene
from playground.mini.wording import LETTERS

SHORT_SUFFIX = "\nAnswer the question using a single word or phrase."
LETTER_SUFFIX = "\nAnswer with the option's letter from the given choices directly."
"""LLaVA's two prompt suffixes, which its training data and its benchmarks share."""


@dataclass(frozen=True)
class Question:
    """A question with its short answer, the same answer as a sentence, and plausible wrong answers.

    ``kind`` names the function that made it. ``wrong`` is empty for questions that do not suit multiple choice (for
    example yes/no), and never contains a right answer.
    """

    kind: str
    text: str
    answer: str
    sentence: str
    wrong: tuple[str, ...] = ()


Asker = Callable[[Scene, random.Random], Question | None]
"""Makes a question about a scene, or None when the scene does not allow it."""


@dataclass(frozen=True)
class Choice:
    """A multiple-choice question: options in order and the index of the right one."""

    kind: str
    text: str
    options: tuple[str, ...]
    right: int

    @property
    def letter(self) -> str:
        """Letter of the right option."""
        return LETTERS[self.right]


def as_choice(question: Question, rng: random.Random, options: int = 4, right: int | None = None) -> Choice | None:
    """Turn a question into a multiple-choice question; the harder (earlier) wrong answers are kept.

    Args:
        options: Maximum number of options, 2 to 4; fewer wrong answers give fewer options.
        right: Index of the right option; random if None.

    Returns:
        None if the question has no wrong answers.
    """
    wrong = list(question.wrong[: options - 1])
    if not wrong:
        return None
    rng.shuffle(wrong)
    place = rng.randrange(len(wrong) + 1) if right is None else min(right, len(wrong))
    wrong.insert(place, question.answer)
    return Choice(question.kind, question.text, tuple(wrong), place)


def shuffled(rng: random.Random, items: Sequence[str]) -> list[str]:
    """A shuffled copy."""
    return rng.sample(list(items), len(items))


def wanted(rng: random.Random, answer: bool | None) -> bool:
    """The yes/no answer asked for, or a fair coin."""
    return rng.random() < 0.5 if answer is None else answer


def yes_no(value: bool) -> str:
    """A truth value as a word: yes or no."""
    return "Yes" if value else "No"
