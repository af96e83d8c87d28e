"""Instruction-to-vision attention maps of several models, drawn over images (the paper, Figs. 7 and 10)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from align_ti.attention.interface import use_align_ti_attention
from align_ti.attention.overlay import SeenBox, sample
from align_ti.attention.read import instruction_maps
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import get_template
from llava.data.images import load_image, preprocess_image
from llava.data.tokenize import tokenize_conversation
from llava.inference.checkpoint import load
from llava.model.protocol import VisionLanguageModel, vision_tower_of


@dataclass
class Viewer:
    """A loaded model that returns its instruction-to-vision attention maps."""

    tokenizer: PreTrainedTokenizerBase
    model: VisionLanguageModel
    template: str

    @classmethod
    def load(cls, path: str, device: str = "auto", dtype: str = "auto") -> "Viewer":
        """Load a checkpoint, prompted with the template it was trained with; see
        ``llava.inference.checkpoint.load``."""
        loaded = load(path, device=device, dtype=dtype)
        use_align_ti_attention(loaded.model)
        return cls(loaded.tokenizer, loaded.model, loaded.template_name)

    @torch.no_grad()
    def maps(self, image: Image.Image, question: str) -> Tensor:
        """Mean attention from the question's tokens to the visual tokens.

        Args:
            image: RGB image.
            question: Human turn, without ``<image>``.

        Returns:
            ``[layers, side, side]``, each entry the mean over heads and question tokens of the softmax over the row.

        Raises:
            InputError: If the visual tokens do not form a square.
        """
        turns = [
            {"from": "human", "value": f"{DEFAULT_IMAGE_TOKEN}\n{question}"},
            {"from": "gpt", "value": "-"},
        ]
        tokens = tokenize_conversation(turns, self.tokenizer, get_template(self.template), 1)
        aspect = getattr(self.model.config, "image_aspect_ratio", None)
        pixels = preprocess_image(image, vision_tower_of(self.model).image_processor, aspect)
        return instruction_maps(self.model, tokens, images=pixels[None].to(self.model.get_input_embeddings().weight))

    def seen_box(self, image: Image.Image) -> SeenBox:
        """The part of an image that the grid of visual tokens covers; with padding it is larger than the image."""
        tower = vision_tower_of(self.model)
        aspect = getattr(self.model.config, "image_aspect_ratio", None)
        return SeenBox.of(*image.size, aspect, tower.image_processor, tower)


@dataclass(frozen=True)
class Column:
    """One column of the figure.

    Attributes:
        name: Name of the model.
        layer: Layer that the maps are taken from.
        maps: ``[side, side]`` for each view.
        boxes: What the grid covers in the image of each view.
    """

    name: str
    layer: int
    maps: Sequence[Tensor]
    boxes: Sequence[SeenBox]


def draw_maps(views: Sequence[tuple[Path, str]], columns: Sequence[Column]) -> Figure:
    """One row for each image and question: the image itself, then each column's map as heat over it.

    Args:
        views: ``(image file, question)`` pairs.
        columns: Models and layers, with one map per view.
    """
    figure = Figure(figsize=(2.3 * (len(columns) + 1), 2.6 * len(views)), layout="constrained")
    axes = figure.subplots(len(views), len(columns) + 1, squeeze=False)
    for number, (row, (file, question)) in enumerate(zip(axes, views, strict=True)):
        image = load_image(file)
        row[0].imshow(image)
        row[0].set_title(question.splitlines()[0], fontsize=8, wrap=True)
        for cell, column in zip(row[1:], columns, strict=True):
            heat = sample(column.maps[number].numpy(), column.boxes[number], *image.size)
            cell.imshow(image)
            cell.imshow(heat / np.nanmax(heat), cmap="inferno", alpha=0.6, vmin=0, vmax=1)
            cell.set_title(f"{column.name}, layer {column.layer}", fontsize=8)
    for cell in axes.flat:
        cell.set_axis_off()
    return figure
