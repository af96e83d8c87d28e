"""What lmms-eval asks, in our words: pictures, the human turn, and where an answer is cut.

Nothing here needs lmms-eval itself; ``llava.eval.lmms.model`` is the model class that it loads.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image
from transformers import PreTrainedConfig

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_TOKEN
from llava.data.images import load_image
from llava.errors import InputError

DEFAULT_NEW_TOKENS = 1024
"""Limit of an answer where the task names none, as in lmms-eval's own LLaVA model."""

BLANK_LINE = "\n\n"
"""The stop string that lmms-eval gives to a task that names none. Answers are not cut at it: the model ends its
own turns, and an answer of several paragraphs is one answer."""


@dataclass(frozen=True, order=True)
class Limits:
    """Where an answer ends, besides the model's own end of turn.

    Attributes:
        max_new_tokens: Limit of the answer in tokens.
        until: Strings at which the answer is cut.
    """

    max_new_tokens: int
    until: tuple[str, ...] = ()

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Limits":
        """The limits in a task's ``generation_kwargs``."""
        until = options.get("until") or ()
        strings = (until,) if isinstance(until, str) else until
        return cls(
            int(options.get("max_new_tokens", DEFAULT_NEW_TOKENS)),
            tuple(string for string in strings if string not in ("", BLANK_LINE)),
        )

    def cut(self, answer: str) -> str:
        """The answer up to the first of the strings, stripped."""
        for string in self.until:
            answer = answer.partition(string)[0]
        return answer.strip()


def asks_for_sampling(options: Mapping[str, Any]) -> bool:
    """Whether a task's ``generation_kwargs`` ask for anything but greedy decoding."""
    return (
        bool(options.get("do_sample"))
        or float(options.get("temperature") or 0) > 0
        or int(options.get("num_beams") or 1) > 1
    )


def pictures_of(visuals: Iterable[Any] | None) -> list[Image.Image]:
    """The pictures of a document, as a task's ``doc_to_visual`` returns them.

    Args:
        visuals: PIL pictures or picture files; ``None`` alone or in between stands for no picture.

    Raises:
        InputError: Something else, such as sound, or a file that is not a picture (a video).
    """
    pictures = []
    for visual in visuals or ():
        if isinstance(visual, Image.Image):
            pictures.append(visual)
        elif isinstance(visual, (str, os.PathLike)):
            pictures.append(load_image(visual))
        elif visual is not None:
            raise InputError(f"a document comes with a {type(visual).__name__}; only pictures are supported")
    return pictures


def human_turn(context: str, pictures: int, config: PreTrainedConfig) -> str:
    """The human turn of a request, with a marker for each picture.

    Markers that the task has placed stay where they are; without any, they go to the front, each followed by
    a newline, as in training and in our own evaluation.

    Args:
        context: The task's text.
        pictures: How many pictures come with it; without any, markers are dropped.
        config: The model's config; its ``mm_use_im_start_end`` puts two more tokens around each marker.

    Raises:
        InputError: The text has markers, but not as many as there are pictures.
    """
    found = context.count(DEFAULT_IMAGE_TOKEN)
    if not pictures:
        return context.replace(DEFAULT_IMAGE_TOKEN, "")
    if found not in (0, pictures):
        raise InputError(
            f"a document's text has {found} {DEFAULT_IMAGE_TOKEN} markers but {pictures} pictures come with it; "
            "let the task place one for each picture, or none at all"
        )
    text = context if found else f"{DEFAULT_IMAGE_TOKEN}\n" * pictures + context
    if getattr(config, "mm_use_im_start_end", False):
        text = text.replace(DEFAULT_IMAGE_TOKEN, DEFAULT_IM_START_TOKEN + DEFAULT_IMAGE_TOKEN + DEFAULT_IM_END_TOKEN)
    return text
