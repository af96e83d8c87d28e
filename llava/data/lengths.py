"""Tokens of every sample, for batches that are filled to a number of tokens.

Tokenizing a mix of millions takes minutes. So some samples, evenly spread, are counted, and the others estimated from
what the annotation cache knows of them: words, turns and images.
"""

import logging

import numpy as np

from llava.data.dataset import ConversationDataset
from llava.data.tokenize import tokenize_conversation
from llava.errors import InputError

logger = logging.getLogger(__name__)

COUNTED = 4096
"""Samples that are counted, a second or two; smaller data sets are counted completely."""


def token_lengths(dataset: ConversationDataset) -> np.ndarray:
    """Tokens of every sample as the model sees it, int64 ``[len(dataset)]``, at least 1.

    An image counts ``dataset.visual_tokens``, and nothing is above ``dataset.model_max_length``. Every process computes
    the same lengths.

    Args:
        dataset: With the vision tower attached.
    """
    annotations = dataset.annotations
    # int64 before the product: 729 tokens times many images may leave the range of the cache's int32.
    visual = annotations.image_counts.astype(np.int64) * dataset.visual_tokens
    counted = np.unique(np.linspace(0, len(dataset) - 1, min(COUNTED, len(dataset)), dtype=np.int64))
    found = np.array([_text_tokens(dataset, index) for index in counted.tolist()])
    counted, found = counted[found >= 0], found[found >= 0]
    text = np.zeros(len(dataset), dtype=np.int64)
    if len(counted) and len(counted) < len(dataset):
        words = np.abs(annotations.lengths)
        known = np.stack([words, annotations.turn_counts, np.ones(len(dataset))], axis=1)
        # Rounded, so that another machine's last bit changes no length, and with it the order of a resumed run.
        weights = np.linalg.lstsq(known[counted], found, rcond=None)[0].round(3)
        text = np.maximum(known @ weights, 0).round().astype(np.int64)
        error = np.abs(text[counted] - found) / np.maximum(found + visual[counted], 1)
        logger.info(
            "tokens of a sample: %.3f a word, %.3f a turn, %.3f besides, %d an image; estimated from %d samples, of "
            "which half are within %.1f%% and 95%% within %.1f%%",
            *weights,
            dataset.visual_tokens,
            len(counted),
            *(100 * np.quantile(error, (0.5, 0.95))),
        )
    text[counted] = found
    return np.clip(text + visual, 1, dataset.model_max_length)


def _text_tokens(dataset: ConversationDataset, index: int) -> int:
    """Tokens of a sample besides its images'; -1 for a malformed one."""
    try:
        entry = dataset.annotations[index]
        images = len(entry["image"])
        tokens = tokenize_conversation(entry["conversations"], dataset.tokenizer, dataset.template, images)
    except InputError:
        return -1
    return len(tokens.input_ids) - images
