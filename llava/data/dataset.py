"""Training samples: annotation entries as tokens, masks and pixel values."""

import logging
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from llava.conversation import Template
from llava.data.annotations.table import Annotations
from llava.data.images import ASPECT_RATIOS, load_image, preprocess_image
from llava.data.tokenize import tokenize_conversation
from llava.errors import InputError

if TYPE_CHECKING:
    from llava.model.vision_tower import VisionTower
    from llava.model.vision_tower.processors import ImageProcessor

logger = logging.getLogger(__name__)

WARNINGS_IN_FULL = 5
"""Number of bad samples that each process describes; further ones are only counted."""

IMAGES_LOOKED_FOR = 256
"""Number of entries whose images are checked for existence before training: enough to notice a wrong folder."""


@dataclass(frozen=True)
class BadSample:
    """Placeholder for a sample that could not be built; the collator drops and counts it."""

    reason: str


class ConversationDataset(Dataset):
    """Map-style dataset over conversation entries.

    An item is a dictionary of ``input_ids``, ``labels``, ``instruction_mask``, ``end_of_turn_mask`` (all ``[T]``, see
    ``TokenizedSample``), ``images`` (float ``[n, 3, H, W]``, ``n`` is 0 for text only) and ``sample_index`` (long
    scalar, the item's index). With ``on_bad_sample="skip"`` a bad sample is a :class:`BadSample` instead. A sample is
    bad if its entry is malformed, an image is missing or unreadable, or the length limit would cut off an image or all
    targets. A bad image is never replaced by another one.

    Args:
        annotations: The entries.
        tokenizer: A fast tokenizer.
        template: The prompt template.
        image_processor: The vision tower's image processor; may be None if there are no images, or with
            ``tower_later``.
        image_folder: Folder that image paths are relative to; None for the annotation file's folder.
        image_aspect_ratio: ``pad``, or ``square`` / None for the processor's own resizing.
        model_max_length: Maximum number of positions of a sample, with ``visual_tokens`` per image; the end of longer
            samples is cut off. None for no limit.
        visual_tokens: Number of positions of an image in the model.
        train_on_inputs: Share of samples, the same ones in every epoch, whose human turns are also targets.
        tower_later: Whether ``attach_tower`` will be called before the first sample is read.
        on_bad_sample: ``error`` raises; ``skip`` returns a :class:`BadSample` and warns about the first few.

    Raises:
        InputError: An argument is wrong, or (with ``error``) an entry is already known to be malformed.
    """

    def __init__(
        self,
        annotations: Annotations,
        tokenizer: PreTrainedTokenizerBase,
        template: Template,
        *,
        image_processor: "ImageProcessor | None" = None,
        image_folder: str | Path | None = None,
        image_aspect_ratio: str | None = None,
        model_max_length: int | None = None,
        visual_tokens: int = 1,
        train_on_inputs: float = 0.0,
        on_bad_sample: Literal["error", "skip"] = "error",
        tower_later: bool = False,
    ):
        if on_bad_sample not in ("error", "skip"):
            raise InputError(f"on_bad_sample is {on_bad_sample!r}, expected 'error' or 'skip'")
        if not 0 <= train_on_inputs <= 1:
            raise InputError(f"--train_on_inputs is {train_on_inputs}, expected a fraction of the samples, 0 to 1")
        if image_aspect_ratio not in ASPECT_RATIOS:
            raise InputError(f"image_aspect_ratio {image_aspect_ratio!r} is not supported; use 'pad' or 'square'")
        if image_folder is not None and not Path(image_folder).is_dir():
            raise InputError(f"image folder {str(image_folder)!r} does not exist; check --image_folder")
        if image_processor is None and not tower_later and bool((annotations.lengths > 0).any()):
            raise InputError("the annotations have images but the model has no vision tower; pass --vision_tower")
        self.annotations = annotations
        self.tokenizer = tokenizer
        self.template = template
        self.image_processor = image_processor
        self.image_folder = None if image_folder is None else Path(image_folder)
        self.image_aspect_ratio = image_aspect_ratio
        self.model_max_length = model_max_length
        self.visual_tokens = visual_tokens
        self.train_on_inputs = train_on_inputs
        self.on_bad_sample = on_bad_sample
        self._warnings = 0
        if on_bad_sample == "error":
            self._refuse_malformed_entries()
        self._check_end_of_turn()

    def __len__(self) -> int:
        return len(self.annotations)

    def attach_tower(self, tower: "VisionTower") -> None:
        """Use the image processor and number of patches of a loaded vision tower."""
        self.image_processor = tower.image_processor
        self.visual_tokens = tower.num_patches

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """Pixel values ``[3, H, W]`` of an RGB image, as the input of the vision tower."""
        assert self.image_processor is not None, "the vision tower is not attached yet"
        return preprocess_image(image, self.image_processor, self.image_aspect_ratio)

    @property
    def lengths(self) -> np.ndarray:
        """Number of words of every entry, negative for text only; the sampler groups by it."""
        return self.annotations.lengths

    def __getitem__(self, index: int) -> dict[str, torch.Tensor] | BadSample:
        try:
            entry = self.annotations[index]
        except InputError as error:
            return self._bad(str(error), error)
        try:
            return self._sample(index, entry)
        except InputError as error:
            return self._bad(f"{self.annotations.where(index)}: {error}", error)

    def _sample(self, index: int, entry: dict[str, Any]) -> dict[str, torch.Tensor]:
        tokens = tokenize_conversation(entry["conversations"], self.tokenizer, self.template, len(entry["image"]))
        if self.model_max_length is not None:
            tokens = tokens.truncate(self.model_max_length, self.visual_tokens)
        if self.train_on_inputs and random.Random(index).random() < self.train_on_inputs:
            tokens = tokens.with_inputs_as_targets()
        folder = self.image_folder or self.annotations.folder(index)
        images = [self.pixels(load_image(folder / path)) for path in entry["image"]]
        return {
            **vars(tokens),
            "images": torch.stack(images) if images else torch.empty(0, 3, 0, 0),
            "sample_index": torch.tensor(index),
        }

    def _bad(self, reason: str, error: InputError) -> BadSample:
        if self.on_bad_sample == "error":
            raise InputError(reason) from error
        self._warnings += 1
        if self._warnings <= WARNINGS_IN_FULL:
            logger.warning("sample skipped: %s", reason)
        if self._warnings == WARNINGS_IN_FULL:
            logger.warning("further bad samples in this process are counted without a message")
        return BadSample(reason)

    def _refuse_malformed_entries(self) -> None:
        problems = self.annotations.problems()
        if problems:
            first = "; ".join(reason for _, reason in problems[:3])
            raise InputError(
                f"{len(problems)} of {len(self.annotations)} entries are malformed, the first: {first}. "
                "List them with `python -m llava.data.check`, or pass --on_bad_sample skip"
            )

    def look_for_images(self) -> None:
        """Check that the images of some entries, spread over the data, exist, to notice a wrong folder before training.

        Raises:
            InputError: Some are missing; with ``on_bad_sample="skip"`` this is only a warning.
        """
        with_images = np.flatnonzero(self.annotations.lengths > 0)
        malformed = {index for index, _ in self.annotations.problems()}
        places = np.linspace(0, max(0, len(with_images) - 1), min(IMAGES_LOOKED_FOR, len(with_images)), dtype=int)
        looked, missing = 0, []
        for index in sorted(set(with_images[places].tolist()) - malformed):
            folder = self.image_folder or self.annotations.folder(index)
            paths = [folder / path for path in self.annotations[index]["image"]]
            looked += len(paths)
            missing += [(index, path) for path in paths if not path.is_file()]
        if not missing:
            return
        index, path = missing[0]
        message = (
            f"{len(missing)} of {looked} images checked are missing, the first: image {str(path)!r} of "
            f"{self.annotations.where(index)} does not exist. Check --image_folder; "
            "`python -m llava.data.check` lists all of them"
        )
        if self.on_bad_sample == "error":
            raise InputError(f"{message}. Pass --on_bad_sample skip to leave out such samples")
        logger.warning("%s", message)

    def _check_end_of_turn(self) -> None:
        """Warn if the end of a turn is several tokens: generation then has no single token to stop at."""
        ids = self.tokenizer(self.template.end_of_turn, add_special_tokens=False).input_ids
        if len(ids) > 1 and not self.template.captions_only:
            logger.warning(
                "template %r ends a turn with %r, %d tokens in this tokenizer; is --version right?",
                self.template.name,
                self.template.end_of_turn,
                len(ids),
            )
