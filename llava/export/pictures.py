"""Conversion of image processors to transformers' own classes, including LLaVA's padding to a square, and back."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import CLIPImageProcessorPil, LlavaImageProcessorPil, SiglipImageProcessorPil
from transformers.image_processing_utils import BaseImageProcessor

from llava.data.images import preprocess_image
from llava.errors import InputError
from llava.model.vision_tower.processors import ImageProcessor, pixel_difference, processor_settings


def to_hf_image_processor(
    processor: ImageProcessor, image_aspect_ratio: str | None, side: int
) -> LlavaImageProcessorPil:
    """transformers' LLaVA image processor with a tower's settings; it pads to a square itself (``do_pad``).

    Args:
        processor: The tower's image processor.
        image_aspect_ratio: ``pad``, ``square`` or None.
        side: Width and height of the tower's images, in pixels.

    Raises:
        InputError: The result differs from this package's on some image.
    """
    settings = {"do_center_crop": False, "crop_size": {"height": side, "width": side}, **processor_settings(processor)}
    made = LlavaImageProcessorPil(**settings, do_pad=image_aspect_ratio == "pad")
    check_same_pixels(made, processor, image_aspect_ratio)
    return made


def from_hf_image_processor(path: str, tower_type: str) -> tuple[Any, str]:
    """A tower's own image processor, and ``image_aspect_ratio``, from a checkpoint in transformers' format.

    Raises:
        InputError: There is none, or its preprocessing is not supported by this package.
    """
    theirs = pil_processor(path)
    pads = bool(getattr(theirs, "do_pad", False)) and hasattr(theirs, "pad_to_square")
    settings = processor_settings(theirs)
    if not settings.get("do_center_crop"):
        settings = {key: value for key, value in settings.items() if key not in ("do_center_crop", "crop_size")}
    if tower_type == "clip_vision_model":
        made: Any = CLIPImageProcessorPil(**{"do_center_crop": False, **settings})
    else:
        made = SiglipImageProcessorPil(**settings)
    image_aspect_ratio = "pad" if pads else "square"
    check_same_pixels(theirs, made, image_aspect_ratio)
    return made, image_aspect_ratio


def pil_processor(path: str) -> Any:
    """The Pillow version of a checkpoint's image processor, so that machines with and without torchvision agree.

    Raises:
        InputError: There is none, or its type has no Pillow version.
    """
    try:
        settings, _ = BaseImageProcessor.get_image_processor_dict(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no readable image processor (preprocessor_config.json): {error}") from error
    kind = str(settings.get("image_processor_type") or settings.get("feature_extractor_type"))
    name = kind.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil") + "Pil"
    if not hasattr(transformers, name):
        raise InputError(f"{path}: an image processor of type {kind!r} is not supported; expected CLIP's or LLaVA's")
    return getattr(transformers, name).from_pretrained(path)


def check_same_pixels(theirs: BaseImageProcessor, ours: ImageProcessor, image_aspect_ratio: str | None) -> None:
    """Compare transformers' processor with this package's preprocessing on images of several shapes.

    Raises:
        InputError: The pixel values differ; the message says by how much.
    """
    difference = pixel_difference(
        lambda picture: preprocess_image(picture, ours, image_aspect_ratio),
        lambda picture: theirs(picture, return_tensors="pt")["pixel_values"][0],
    )
    if difference is not None:
        raise InputError(
            f"transformers' image processor and this package's (image_aspect_ratio {image_aspect_ratio!r}) give "
            f"different pixels for an image of {difference}; compare preprocessor_config.json of the tower with that "
            "of the checkpoint"
        )
