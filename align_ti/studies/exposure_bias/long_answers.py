"""Conversations with long answers (the paper, appendix B.4.1): enough tokens to see errors accumulate."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from llava.constants import DEFAULT_IMAGE_TOKEN, IGNORE_INDEX
from llava.conversation import Template
from llava.data.annotations.entry import check_conversation
from llava.data.annotations.table import Annotations
from llava.data.collator import ConversationCollator
from llava.data.images import load_image, preprocess_image
from llava.data.tokenize import TokenizedSample, tokenize_conversation
from llava.errors import InputError
from llava.model.vision_tower.processors import ImageProcessor


@dataclass(frozen=True)
class LongAnswer:
    """The first question of a conversation, its answer, and the question's images."""

    tokens: TokenizedSample
    pictures: list[Path]

    @property
    def length(self) -> int:
        """Number of tokens in the answer, including the end-of-turn token."""
        return int((self.tokens.labels != IGNORE_INDEX).sum())


def first_answers(
    annotations: Annotations, tokenizer: PreTrainedTokenizerBase, template: Template, seed: int = 0
) -> Iterator[tuple[int, LongAnswer]]:
    """Entries in random order, cut to their first question and answer.

    Args:
        annotations: Conversations to search.
        tokenizer: Tokenizer of the model.
        template: Prompt template.
        seed: Random seed of the order.

    Yields:
        The index of an entry and its first question and answer, with image paths as written in the file. Malformed
        entries are skipped, as with ``--on_bad_sample skip`` in training.
    """
    malformed = {index for index, _ in annotations.problems()}
    for index in torch.randperm(len(annotations), generator=torch.Generator().manual_seed(seed)).tolist():
        if index in malformed:
            continue
        entry = annotations[index]
        (human, question), (assistant, answer) = check_conversation(entry["conversations"], len(entry["image"]))[:2]
        pictures = entry["image"][: question.count(DEFAULT_IMAGE_TOKEN)]
        turns = [{"from": human, "value": question}, {"from": assistant, "value": answer}]
        tokens = tokenize_conversation(turns, tokenizer, template, len(pictures))
        yield index, LongAnswer(tokens, [Path(path) for path in pictures])


def find_long_answers(
    annotations: Annotations,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    *,
    samples: int,
    at_least: int,
    image_folder: Path | None = None,
    seed: int = 0,
) -> list[LongAnswer]:
    """Random conversations whose first answer is long; later turns are cut off.

    Args:
        annotations, tokenizer, template, seed: As for :func:`first_answers`.
        samples: Number of conversations, at least 1.
        at_least: Minimum number of tokens in the answer, including the end-of-turn token.
        image_folder: Folder that image paths are relative to; the annotation file's folder by default.

    Raises:
        InputError: There are fewer than ``samples``.
    """
    if samples < 1:
        raise InputError(f"--samples is {samples}; at least one long answer is needed")
    found: list[LongAnswer] = []
    longest = 0
    for index, answer in first_answers(annotations, tokenizer, template, seed):
        longest = max(longest, answer.length)
        if answer.length >= at_least:
            folder = image_folder or annotations.folder(index)
            found.append(LongAnswer(answer.tokens, [folder / path for path in answer.pictures]))
        if len(found) == samples:
            return found
    raise InputError(
        f"{len(found)} of {len(annotations)} conversations begin with an answer of at least {at_least} tokens, the "
        f"longest has {longest}; {samples} are needed: lower --samples or --max-new-tokens, or set --min-answer-tokens"
    )


def batches(
    answers: Sequence[LongAnswer],
    size: int,
    pad_token_id: int,
    image_processor: ImageProcessor,
    aspect_ratio: str | None,
) -> Iterator[dict[str, Any]]:
    """Batches of ``size``, made by the collator; images are read when needed.

    Raises:
        InputError: ``size < 1``, or an image cannot be read.
    """
    if size < 1:
        raise InputError(f"--batch-size is {size}; it must be at least 1")
    collate = ConversationCollator(pad_token_id)
    for start in range(0, len(answers), size):
        chosen = answers[start : start + size]
        pictures = [
            [preprocess_image(load_image(path), image_processor, aspect_ratio) for path in answer.pictures]
            for answer in chosen
        ]
        yield collate(
            [
                {**vars(answer.tokens), "images": torch.stack(images) if images else torch.empty(0, 3, 0, 0)}
                for answer, images in zip(chosen, pictures, strict=True)
            ]
        )
