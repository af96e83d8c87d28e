"""Where the instruction of an answer looks in the picture: one map a layer."""

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
        grids: ``[layers, side, side]``, the mean attention, over heads and the words of the question, that each
            visual token gets; a layer sums to what the whole picture gets, at most 1.
        box: what a grid covers of the picture.
    """

    grids: NDArray[np.float32]
    box: SeenBox

    def picture(self, picture: Image.Image, layer: int) -> Image.Image:
        """The map of a layer over the picture."""
        return draw(picture, self.grids[layer], self.box)

    def peak(self, layer: int) -> float:
        """Attention of the visual token that gets most."""
        return float(self.grids[layer].max())

    def total(self, layer: int) -> float:
        """Attention that all visual tokens get together."""
        return float(self.grids[layer].sum())

    def on_padding(self, picture: Image.Image, layer: int) -> float:
        """How much of the visual tokens' attention falls on the padding (0 to 1)."""
        return 1 - share_inside(self.grids[layer], self.box, *picture.size)


def measure(chat: Chat, index: int = -1) -> AnswerMaps | None:
    """The maps of one of a conversation's answers; None without a picture.

    Args:
        chat: its model runs the attention ``WATCHED_ATTENTION``.
        index: which exchange.

    Raises:
        InputError: the model cannot be watched, or its visual tokens form no square.
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
