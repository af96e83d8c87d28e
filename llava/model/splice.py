"""Inserts the visual tokens at the ``<image>`` markers.

A row of ``input_ids`` has one id of -200 for each image. Every such id expands to the image's Nv projected features,
and everything aligned with the ids (labels, instruction mask) expands with it. Padding columns of the input are dropped
first, so the result is only as long as its longest row, padded on the requested side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import InputError


@dataclass
class SplicedBatch:
    """Inputs of the language model, all aligned on ``[B, S]``.

    Attributes:
        inputs_embeds: ``[B, S, D]``; zero at padding.
        attention_mask: ``[B, S]`` bool; False at padding.
        position_ids: ``[B, S]`` long; counts the tokens of a row from 0, without padding.
        labels: ``[B, S]`` long; -100 at visual tokens, at padding and where it was -100 before.
        instruction_mask: ``[B, S]`` bool; False at visual tokens and padding.
        visual_mask: ``[B, S]`` bool; True at visual tokens.
        right_padded: Whether every row's tokens begin at column 0. A causal model then needs no mask: no token sees
            the padding after it.
    """

    inputs_embeds: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    labels: Tensor
    instruction_mask: Tensor
    visual_mask: Tensor
    right_padded: bool = False

    def on_host(self) -> SplicedBatch:
        """The batch on the CPU, without the embeddings: one transfer, for which the host waits."""
        names = ("labels", "position_ids", "attention_mask", "instruction_mask", "visual_mask")
        tensors = [getattr(self, name) for name in names]
        moved = torch.stack([tensor.long() for tensor in tensors]).cpu()
        values = {name: row.to(like.dtype) for name, row, like in zip(names, moved, tensors, strict=True)}
        empty = torch.empty(*self.labels.shape, 0, dtype=self.inputs_embeds.dtype)
        return SplicedBatch(inputs_embeds=empty, **values, right_padded=self.right_padded)


def position_ids_from_mask(attention_mask: Tensor) -> Tensor:
    """Positions ``[B, S]`` that count a row's own tokens from 0, for padding on either side.

    Args:
        attention_mask: ``[B, S]``; non-zero at tokens.
    """
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp_min(0)


def flatten_images(images: Tensor | Sequence[Tensor] | None) -> Tensor | None:
    """Flatten images to one batch in reading order.

    Args:
        images: ``[N, 3, H, W]``, ``[3, H, W]``, ``[B, n, 3, H, W]``, a list of ``[3, H, W]`` or ``[n, 3, H,
            W]``, or nothing.

    Returns:
        ``[N, 3, H, W]``, or ``None`` if there is no image.

    Raises:
        InputError: The shape is none of these, or the images have different sizes.
    """
    if images is None or len(images) == 0:
        return None
    if isinstance(images, Tensor):
        if images.dim() not in (3, 4, 5):
            raise InputError(f"images of shape {list(images.shape)}; expected [N, 3, H, W], [B, n, 3, H, W] or a list")
        return images.reshape(-1, *images.shape[-3:])
    parts = [flatten_images(part) for part in images]
    found = [part for part in parts if part is not None]
    if not found:
        return None
    shapes = {tuple(part.shape[1:]) for part in found}
    if len(shapes) > 1:
        raise InputError(f"images of different sizes in one batch: {sorted(shapes)}; prepare all with one processor")
    return torch.cat(found)


def splice(
    embed: Callable[[Tensor], Tensor],
    input_ids: Tensor,
    visual: Tensor | None,
    attention_mask: Tensor | None = None,
    labels: Tensor | None = None,
    instruction_mask: Tensor | None = None,
    padding_side: str = "right",
    blank: Tensor | None = None,
) -> SplicedBatch:
    """Build the language model's inputs from ids and visual tokens.

    Args:
        embed: Token embedding, ids ``[B, S]`` to ``[B, S, D]``.
        input_ids: ``[B, T]`` with -200 for each image.
        visual: Projected features ``[N, Nv, D]`` of the N images in reading order, or None.
        attention_mask: ``[B, T]``, non-zero at tokens; all are tokens if absent. Its zeros may be on either
            side.
        labels: ``[B, T]``; all -100 if absent.
        instruction_mask: ``[B, T]`` bool; all False if absent.
        padding_side: Side on which the result is padded, ``right`` or ``left``.
        blank: If there are no images, projected features of a blank image, which go through the same operations and
            only contribute a zero gradient. Distributed ranks with and without images then have the same graph and
            finish gradients in the same order; DeepSpeed's ZeRO-1 and 2 sum whatever is finished at the same time.

    Raises:
        InputError: The numbers of images and markers differ, a shape does not fit, or the padding side is unknown.
    """
    if padding_side not in ("right", "left"):
        raise InputError(f"padding side is {padding_side!r}; expected 'right' or 'left'")
    for name, tensor in (
        ("attention_mask", attention_mask),
        ("labels", labels),
        ("instruction_mask", instruction_mask),
    ):
        if tensor is not None and tensor.shape != input_ids.shape:
            raise InputError(f"{name} has shape {list(tensor.shape)}, but input_ids has {list(input_ids.shape)}")
    is_token = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    is_image = (input_ids == IMAGE_TOKEN_INDEX) & is_token
    markers = int(is_image.sum())
    pictures = 0 if visual is None else visual.shape[0]
    if markers != pictures:
        raise InputError(
            f"{markers} <image> markers in the text but {pictures} images in the batch; each marker needs one image"
        )
    per_picture = 0 if visual is None else visual.shape[1]

    # Every position of the result looks up the input column that it comes from, for all rows at once: a loop over
    # images would synchronise with the device for each. With Nv = 3:
    #     input_ids   a   <image>   b   padding
    #     width       1      3      1      0        positions that a column becomes
    #     ends        1      4      5      5
    #     place       0   1  2  3   4
    #     column      0   1  1  1   2
    width = torch.where(is_image, per_picture, is_token.long())
    ends = width.cumsum(dim=1)
    lengths = ends[:, -1:]
    longest = int(lengths.max())
    place = torch.arange(longest, device=input_ids.device).expand(input_ids.shape[0], -1)
    if padding_side == "left":
        place = place - (longest - lengths)
    mask = (place >= 0) & (place < lengths)
    # A position comes from the first column whose end is greater than the position.
    column = torch.searchsorted(ends, place.clamp_min(0).contiguous(), right=True).clamp_max(input_ids.shape[1] - 1)

    visual_mask = is_image.gather(1, column) & mask
    text_mask = mask & ~visual_mask
    # The embedding has no row -200: positions without text read row 0, which is then replaced by zeros.
    embeds = embed(input_ids.gather(1, column).masked_fill(~text_mask, 0))
    embeds = embeds.masked_fill(~text_mask.unsqueeze(-1), 0)
    # masked_scatter fills row by row, which is the reading order of the images. For a blank image the mask is empty:
    # nothing is written, but the vision part is in the graph.
    source = blank if visual is None else visual
    if source is not None:
        embeds = embeds.masked_scatter(visual_mask.unsqueeze(-1), source.to(embeds))

    def follow(aligned: Tensor | None, fill: int | bool, dtype: torch.dtype) -> Tensor:
        if aligned is None:
            return torch.full_like(column, fill, dtype=dtype)
        return aligned.to(dtype).gather(1, column).masked_fill(~text_mask, fill)

    return SplicedBatch(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=position_ids_from_mask(mask),
        labels=follow(labels, IGNORE_INDEX, torch.long),
        instruction_mask=follow(instruction_mask, False, torch.bool),
        visual_mask=visual_mask,
        right_padded=padding_side == "right",
    )
