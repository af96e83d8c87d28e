"""Attention maps of an answer: where the instruction attends in the picture, one map per layer."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from align_ti.attention.interface import NAME as WATCHED_ATTENTION
from align_ti.attention.overlay import SeenBox, draw, share_inside
from align_ti.attention.read import instruction_maps
from llava.data.tokenize import tokenize_segments
from llava.model.protocol import vision_tower_of
from llava.serve.chat import Chat

__all__ = ["WATCHED_ATTENTION", "AnswerMaps", "measure"]


@dataclass(frozen=True)
class AnswerMaps:
    """The maps of one answer.

    Attributes:
        grids: ``[layers, side, side]``, attention to each visual token, averaged over heads and the question's tokens;
            a layer sums to the attention of the whole picture, at most 1.
        box: The part of the picture that a grid covers.
    """

    grids: NDArray[np.float32]
    box: SeenBox

    def picture(self, picture: Image.Image, layer: int) -> Image.Image:
        """The picture with the map of a layer drawn over it."""
        return draw(picture, self.grids[layer], self.box)

    def peak(self, layer: int) -> float:
        """Largest attention to a single visual token."""
        return float(self.grids[layer].max())

    def total(self, layer: int) -> float:
        """Total attention to all visual tokens."""
        return float(self.grids[layer].sum())

    def on_padding(self, picture: Image.Image, layer: int) -> float:
        """Share of the visual tokens' attention that falls on the padding (0 to 1)."""
        return 1 - share_inside(self.grids[layer], self.box, *picture.size)


def measure(chat: Chat, index: int = -1) -> AnswerMaps | None:
    """The maps of one answer in a conversation; None if there is no picture.

    Args:
        chat: Conversation with a model that uses the attention ``WATCHED_ATTENTION``.
        index: Index of the exchange.

    Raises:
        InputError: The model's attention cannot be read, or its visual tokens do not form a square.
    """
    features = chat.features()
    if chat.picture is None or features is None:
        return None
    index %= len(chat.exchanges)
    loaded = chat.model.loaded
    segments = chat.segments(chat.exchanges[index][0], chat.exchanges[:index])
    grids = instruction_maps(loaded.model, tokenize_segments(segments, loaded.tokenizer), vision_features=features)
    aspect = getattr(loaded.model.config, "image_aspect_ratio", None)
    tower = vision_tower_of(loaded.model)
    box = SeenBox.of(*chat.picture.size, aspect, loaded.image_processor, tower)
    return AnswerMaps(grids.float().cpu().numpy(), box)
