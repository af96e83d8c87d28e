"""Where the instruction looks: instruction-to-vision maps of several models over a picture (the paper, Figs. 2 and 7).

    python -m align_ti.analysis.attention_pictures --model teacher=RUN --model student=RUN \\
        --image F.png --question "What is at the top left?" --question "Is there a dog?" --out maps.png
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from align_ti.attention import AttentionCapture, require_align_ti_attention, use_align_ti_attention
from align_ti.attention_maps import MapRequest
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import get_template
from llava.data.images import load_image, preprocess_image
from llava.data.tokenize import TokenizedSample, tokenize_conversation
from llava.errors import InputError, run_cli
from llava.mm_utils import get_model_name_from_path
from llava.model.builder import load_pretrained_model


@dataclass
class Viewer:
    """A loaded model that can be asked where it looks."""

    tokenizer: Any
    model: Any
    template: str

    @classmethod
    def load(cls, path: str, template: str | None = None) -> "Viewer":
        """Load a checkpoint; the template is the one it was tuned with unless given."""
        tokenizer, model, _, _ = load_pretrained_model(
            path, None, get_model_name_from_path(path), torch_dtype=torch.float32
        )
        use_align_ti_attention(model)
        return cls(tokenizer, model.eval(), template or str(getattr(model.config, "mm_template", "qwen")))

    @torch.no_grad()
    def maps(self, image: Image.Image, question: str) -> Tensor:
        """Mean attention from the question's tokens to the visual tokens.

        Args:
            image: RGB picture.
            question: the human turn, without ``<image>``.

        Returns:
            ``[layers, side, side]``, each entry the mean over heads and question tokens of the softmax over the row.

        Raises:
            InputError: if the visual tokens do not form a square.
        """
        turns = [
            {"from": "human", "value": f"{DEFAULT_IMAGE_TOKEN}\n{question}"},
            {"from": "gpt", "value": "-"},
        ]
        tokens = tokenize_conversation(turns, self.tokenizer, get_template(self.template), 1)
        aspect = getattr(self.model.config, "image_aspect_ratio", None)
        pixels = preprocess_image(image, self.model.get_vision_tower().image_processor, aspect)
        return instruction_maps(self.model, tokens, images=pixels[None])


@torch.no_grad()
def instruction_maps(model: Any, tokens: TokenizedSample, **pictures: Tensor) -> Tensor:
    """Mean attention from instruction tokens to visual tokens, in every layer.

    Args:
        model: runs the ``align_ti`` attention.
        tokens: one prompt with one picture.
        pictures: ``images=`` or ``vision_features=``, as ``splice_inputs`` takes them.

    Returns:
        ``[layers, side, side]``, each entry the mean over heads and instruction tokens of the softmax over the row.

    Raises:
        InputError: the model runs another attention, or the visual tokens do not form a square.
    """
    require_align_ti_attention(model)
    home = model.get_input_embeddings().weight.device
    inputs = model.splice_inputs(
        tokens.input_ids[None].to(home), instruction_mask=tokens.instruction_mask[None].to(home), **pictures
    )
    layers = range(model.config.num_hidden_layers)
    capture = AttentionCapture(maps=MapRequest(frozenset(layers), inputs.instruction_mask, inputs.attention_mask))
    model.model(
        inputs_embeds=inputs.inputs_embeds,
        attention_mask=inputs.attention_mask,
        position_ids=inputs.position_ids,
        use_cache=False,
        capture=capture,
    )
    rows = torch.stack([capture.maps[layer][0, inputs.visual_mask[0]] for layer in layers])
    side = math.isqrt(rows.shape[1])
    if side * side != rows.shape[1]:
        raise InputError(f"{rows.shape[1]} visual tokens do not form a square; this tower's maps cannot be drawn")
    return rows.view(-1, side, side)


def draw_maps(
    views: Sequence[tuple[Image.Image, str]],
    viewers: Mapping[str, Viewer],
    layers: Mapping[str, int],
    file: Path,
) -> None:
    """One row a picture and question, one column a model: the map as heat over the picture.

    Args:
        views: ``(picture, question)`` pairs.
        viewers: models by name.
        layers: the layer drawn of each model; a name not in it gets its last layer.
        file: picture to write.
    """
    figure = Figure(figsize=(2.3 * (len(viewers) + 1), 2.6 * len(views)), layout="constrained")
    axes = figure.subplots(len(views), len(viewers) + 1, squeeze=False)
    for row, (image, question) in zip(axes, views, strict=True):
        row[0].imshow(image)
        row[0].set_title(question.splitlines()[0], fontsize=8, wrap=True)
        for cell, (name, viewer) in zip(row[1:], viewers.items(), strict=True):
            layer = layers.get(name, -1)
            heat = viewer.maps(image, question)[layer]
            cell.imshow(image)
            cell.imshow(
                heat / heat.max(),
                cmap="inferno",
                alpha=0.6,
                interpolation="bilinear",
                vmin=0,
                vmax=1,
                extent=(-0.5, image.width - 0.5, image.height - 0.5, -0.5),
            )
            cell.set_title(f"{name}, layer {layer % viewer.model.config.num_hidden_layers}", fontsize=8)
    for cell in axes.flat:
        cell.set_axis_off()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", action="append", required=True, metavar="NAME=CHECKPOINT")
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--question", action="append", required=True)
    parser.add_argument("--layer", type=int, default=-1, help="layer drawn, from 0 or from the end")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    viewers = {}
    for model in arguments.model:
        name, separator, path = model.partition("=")
        if not separator:
            raise InputError(f"--model {model!r}: expected NAME=CHECKPOINT")
        viewers[name] = Viewer.load(path)
    image = load_image(arguments.image)
    draw_maps(
        [(image, question) for question in arguments.question],
        viewers,
        dict.fromkeys(viewers, arguments.layer),
        arguments.out,
    )


if __name__ == "__main__":
    run_cli(main)
