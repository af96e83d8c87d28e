"""Helpers with LLaVA's names, for evaluation programs written for LLaVA."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX
from llava.data.images import preprocess_image, to_rgb
from llava.errors import InputError
from llava.model.vision_tower.processors import ImageProcessor


def get_model_name_from_path(model_path: str) -> str:
    """The last part of a path or hub name; for a ``checkpoint-N`` folder, with the name of its parent."""
    parts = model_path.rstrip("/").split("/")
    if parts[-1].startswith("checkpoint-") and len(parts) > 1:
        return f"{parts[-2]}_{parts[-1]}"
    return parts[-1]


def tokenizer_image_token(
    prompt: str,
    tokenizer: PreTrainedTokenizerBase,
    image_token_index: int = IMAGE_TOKEN_INDEX,
    return_tensors: str | None = None,
) -> list[int] | torch.Tensor:
    """Token ids of a prompt, with ``image_token_index`` for every ``<image>``.

    The text between the images is tokenised piece by piece. If the tokenizer adds a BOS token to every text, only the
    first one is kept.

    Args:
        prompt: Text with any number of ``<image>`` markers.
        tokenizer: Any transformers tokenizer.
        image_token_index: The id that stands for an image.
        return_tensors: None for a list, ``"pt"`` for a LongTensor ``[T]``.

    Raises:
        InputError: ``return_tensors`` has another value.
    """
    if return_tensors not in (None, "pt"):
        raise InputError(f"return_tensors={return_tensors!r} is not supported; use None or 'pt'")
    chunks: list[list[int]] = [tokenizer(text).input_ids for text in prompt.split(DEFAULT_IMAGE_TOKEN)]
    has_bos = bool(chunks[0]) and chunks[0][0] == tokenizer.bos_token_id
    ids = list(chunks[0])
    for chunk in chunks[1:]:
        ids.append(image_token_index)
        ids += chunk[1:] if has_bos else chunk
    return torch.tensor(ids, dtype=torch.long) if return_tensors == "pt" else ids


def process_images(
    images: Sequence[Image.Image], image_processor: ImageProcessor, model_cfg: PreTrainedConfig | Mapping[str, Any]
) -> torch.Tensor:
    """Pixel values of several images, preprocessed as in training.

    Args:
        images: PIL images in any mode.
        image_processor: The vision tower's image processor.
        model_cfg: The model's config (an object or a mapping); its ``image_aspect_ratio`` selects padding to a square
            (``pad``) or the processor's own resizing (``square``, or not set).

    Returns:
        Float tensor ``[N, 3, H, W]``.

    Raises:
        InputError: There are no images, or ``image_aspect_ratio`` is unknown.
    """
    if not images:
        raise InputError("process_images was given no images; do not call it for text-only input")
    if isinstance(model_cfg, Mapping):
        aspect_ratio = model_cfg.get("image_aspect_ratio")
    else:
        aspect_ratio = getattr(model_cfg, "image_aspect_ratio", None)
    return torch.stack([preprocess_image(to_rgb(image), image_processor, aspect_ratio) for image in images])
