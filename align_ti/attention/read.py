"""Instruction-to-vision attention of a prompt in every layer, from one forward pass."""

import math

import torch
from torch import Tensor

from align_ti.attention.interface import AttentionCapture, require_align_ti_attention
from align_ti.attention.maps import MapRequest
from llava.data.tokenize import TokenizedSample
from llava.errors import InputError
from llava.model.protocol import VisionLanguageModel


@torch.no_grad()
def instruction_maps(
    model: VisionLanguageModel,
    tokens: TokenizedSample,
    images: Tensor | None = None,
    vision_features: Tensor | None = None,
) -> Tensor:
    """Mean attention from instruction tokens to visual tokens, in every layer.

    Args:
        model: Runs the ``align_ti`` attention.
        tokens: One prompt with one image.
        images, vision_features: The image, or its features, as ``splice_inputs`` takes them.

    Returns:
        ``[layers, side, side]``, each entry the mean over heads and instruction tokens of the softmax over the row.

    Raises:
        InputError: The model uses another attention, or the visual tokens do not form a square.
    """
    require_align_ti_attention(model)
    home = model.get_input_embeddings().weight.device
    inputs = model.splice_inputs(
        tokens.input_ids[None].to(home),
        instruction_mask=tokens.instruction_mask[None].to(home),
        images=images,
        vision_features=vision_features,
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
