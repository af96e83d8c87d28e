"""Collate samples to batches: sequences padded to one length, images in reading order."""

import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch

from llava.constants import IGNORE_INDEX
from llava.data.dataset import BadSample
from llava.errors import InputError

logger = logging.getLogger(__name__)


class ConversationCollator:
    """Pads samples of ``ConversationDataset`` to a batch.

    The attention mask comes from the samples' lengths, never from comparing ids with the padding id, which may also
    occur in the text (Qwen pads with its end-of-turn token).

    A batch has these keys; the last three are absent if they do not apply:

    - ``input_ids``, ``labels`` (long ``[B, T]``), ``instruction_mask``, ``attention_mask`` (bool ``[B, T]``);
    - ``sample_index``: long ``[B]``, the samples' indices in the dataset;
    - ``images``: float ``[N, 3, H, W]``, all images of the batch in reading order;
    - ``skipped``: number of bad samples, which are left out of the batch.

    If all samples are bad, or there are none, the batch is one row with a single padding token that is attended to but
    is not a target, so that this rank takes part in the step like every other.

    Args:
        pad_token_id: Padding value of ``input_ids``.
        padding_side: ``right`` or ``left``.

    Raises:
        InputError: The padding side is unknown, or there is no padding id.
    """

    def __init__(self, pad_token_id: int, padding_side: Literal["right", "left"] = "right"):
        if padding_side not in ("right", "left"):
            raise InputError(f"padding_side is {padding_side!r}, expected 'right' or 'left'")
        if pad_token_id is None:
            raise InputError(
                "the tokenizer has no padding token; set tokenizer.pad_token (for example to the eos token)"
            )
        self.pad_token_id = pad_token_id
        self.padding_side = padding_side

    def __call__(self, samples: Sequence[dict[str, torch.Tensor] | BadSample]) -> dict[str, Any]:
        good = [sample for sample in samples if not isinstance(sample, BadSample)]
        skipped = len(samples) - len(good)
        if skipped and not good:
            logger.warning("all %d samples of a batch are bad; the batch contributes nothing to training", skipped)
        if not good:
            good = [self._filler()]
        batch: dict[str, Any] = {
            "input_ids": self._pad([sample["input_ids"] for sample in good], self.pad_token_id),
            "labels": self._pad([sample["labels"] for sample in good], IGNORE_INDEX),
            "instruction_mask": self._pad([sample["instruction_mask"] for sample in good], False),
            "attention_mask": self._pad(
                [torch.ones(len(sample["input_ids"]), dtype=torch.bool) for sample in good], False
            ),
        }
        if all("sample_index" in sample for sample in good):
            batch["sample_index"] = torch.stack([sample["sample_index"] for sample in good])
        images = [sample["images"] for sample in good if len(sample["images"])]
        if images:
            batch["images"] = torch.cat(images)
        if skipped:
            batch["skipped"] = skipped
        return batch

    def _pad(self, rows: Sequence[torch.Tensor], value: int | bool) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(
            list(rows), batch_first=True, padding_value=value, padding_side=self.padding_side
        )

    def _filler(self) -> dict[str, torch.Tensor]:
        return {
            "input_ids": torch.tensor([self.pad_token_id]),
            "labels": torch.tensor([IGNORE_INDEX]),
            "instruction_mask": torch.tensor([False]),
            "images": torch.empty(0, 3, 0, 0),
        }
