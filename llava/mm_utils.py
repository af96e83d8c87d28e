"""Small helpers with LLaVA's names, as evaluation programs written for LLaVA call them."""

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
    """The last part of a path or hub name; a ``checkpoint-N`` folder is named together with its parent."""
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

    The text is tokenised piece by piece between the images. A tokenizer that begins every text with its BOS
    token leaves one BOS, at the very front.

    Args:
        prompt: Text with any number of ``<image>`` markers.
        tokenizer: Any transformers tokenizer.
        image_token_index: The id that stands for an image.
        return_tensors: None for a list, ``"pt"`` for a LongTensor ``[T]``.

    Raises:
        InputError: Another value of ``return_tensors``.
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
    """Pixel values of several images, as the model was trained to see them.

    Args:
        images: PIL images in any mode.
        image_processor: The vision tower's processor.
        model_cfg: The model's config (an object or a mapping); its ``image_aspect_ratio`` decides between
            padding to a square (``pad``) and the processor's own resizing (``square``, or not set).

    Returns:
        Float tensor ``[N, 3, H, W]``.

    Raises:
        InputError: No image, or an unknown ``image_aspect_ratio``.
    """
    if not images:
        raise InputError("process_images was given no image; leave images out of the call for text-only input")
    if isinstance(model_cfg, Mapping):
        aspect_ratio = model_cfg.get("image_aspect_ratio")
    else:
        aspect_ratio = getattr(model_cfg, "image_aspect_ratio", None)
    return torch.stack([preprocess_image(to_rgb(image), image_processor, aspect_ratio) for image in images])
