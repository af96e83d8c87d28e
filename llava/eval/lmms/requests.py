"""lmms-eval's requests converted to this package's form: images, the human turn and the limits of an answer.

Nothing here imports lmms-eval; ``llava.eval.lmms.model`` has the model class that it loads.
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
"""Default limit of an answer in tokens, as in lmms-eval's own LLaVA model."""

BLANK_LINE = "\n\n"
"""lmms-eval's default stop string. Answers are not cut at it: the model ends its own turns, and an answer may have
several paragraphs."""


@dataclass(frozen=True, order=True)
class Limits:
    """Where an answer ends, besides the model's own end of turn.

    Attributes:
        max_new_tokens: Maximum length of the answer in tokens.
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
        """The answer up to the first of the stop strings, without surrounding white space."""
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
    """The images of a document, as a task's ``doc_to_visual`` returns them.

    Args:
        visuals: PIL images or image files. None, alone or as an item, stands for no image.

    Raises:
        InputError: An item is something else, such as audio, or a file that is not an image, such as a video.
    """
    pictures = []
    for visual in visuals or ():
        if isinstance(visual, Image.Image):
            pictures.append(visual)
        elif isinstance(visual, (str, os.PathLike)):
            pictures.append(load_image(visual))
        elif visual is not None:
            raise InputError(f"a document comes with a {type(visual).__name__}; only images are supported")
    return pictures


def human_turn(context: str, pictures: int, config: PreTrainedConfig) -> str:
    """The human turn of a request, with one marker per image.

    Markers in the task's text stay where they are. If there are none, they are put in front, each followed by a
    newline, as in training and in ``llava.eval``.

    Args:
        context: The task's text.
        pictures: Number of images; if 0, markers are removed.
        config: The model's config; its ``mm_use_im_start_end`` puts a token before and after each marker.

    Raises:
        InputError: The text has markers, but not one per image.
    """
    found = context.count(DEFAULT_IMAGE_TOKEN)
    if not pictures:
        return context.replace(DEFAULT_IMAGE_TOKEN, "")
    if found not in (0, pictures):
        raise InputError(
            f"a document's text has {found} {DEFAULT_IMAGE_TOKEN} markers but {pictures} images come with it; "
            "the task must place one marker per image, or none at all"
        )
    text = context if found else f"{DEFAULT_IMAGE_TOKEN}\n" * pictures + context
    if getattr(config, "mm_use_im_start_end", False):
        text = text.replace(DEFAULT_IMAGE_TOKEN, DEFAULT_IM_START_TOKEN + DEFAULT_IMAGE_TOKEN + DEFAULT_IM_END_TOKEN)
    return text
