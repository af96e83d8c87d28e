"""From a conversation to token ids and masks.

The conversation is rendered to segments, each stretch of text between images is tokenised in one piece, and every token
takes the properties of the segment that contains its first character. Rendered text is never searched and never
tokenised twice, so ids and masks always agree.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import Segment, Template
from llava.data.annotations.entry import MALFORMED_CONVERSATION, EntryError, check_conversation
from llava.errors import InputError

IMAGE_CUT = "image cut away"
ANSWER_CUT = "answer cut away"


@dataclass
class TokenizedSample:
    """One conversation as tokens; all tensors have shape ``[T]``.

    Attributes:
        input_ids: Token ids (long), with one ``IMAGE_TOKEN_INDEX`` per image.
        labels: Ids of the targets, ``IGNORE_INDEX`` elsewhere (long). Position 0 is never a target, since nothing
            predicts it.
        instruction_mask: True at tokens of the human's own words (bool).
        end_of_turn_mask: True at tokens that close an assistant turn (bool).
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    instruction_mask: torch.Tensor
    end_of_turn_mask: torch.Tensor

    def spliced_length(self, visual_tokens: int) -> int:
        """Number of positions after each image is replaced by ``visual_tokens`` positions."""
        images = int((self.input_ids == IMAGE_TOKEN_INDEX).sum())
        return len(self.input_ids) + images * (visual_tokens - 1)

    def with_inputs_as_targets(self) -> "TokenizedSample":
        """The same sample with every text token as a target, including the human's and the template's."""
        labels = torch.where(self.input_ids == IMAGE_TOKEN_INDEX, IGNORE_INDEX, self.input_ids)
        labels[:1] = IGNORE_INDEX
        return replace(self, labels=labels)

    def truncate(self, max_length: int, visual_tokens: int) -> "TokenizedSample":
        """Cut off the end so that at most ``max_length`` spliced positions remain.

        Raises:
            EntryError: An image or all targets would be cut off.
        """
        if self.spliced_length(visual_tokens) <= max_length:
            return self
        # The limit counts positions after splicing, but the cut is made before, where an image is one id.
        is_image = self.input_ids == IMAGE_TOKEN_INDEX
        ends = torch.cumsum(torch.where(is_image, visual_tokens, 1), dim=0)
        keep = int((ends <= max_length).sum())
        size = (
            f"the sample has {int(ends[-1])} positions ({visual_tokens} per image), "
            f"the limit is {max_length}; raise --model_max_length"
        )
        if is_image[keep:].any():
            raise EntryError(IMAGE_CUT, f"an image is cut away: {size}")
        if not (self.labels[:keep] != IGNORE_INDEX).any():
            raise EntryError(ANSWER_CUT, f"the whole answer is cut away: {size}")
        return TokenizedSample(
            self.input_ids[:keep],
            self.labels[:keep],
            self.instruction_mask[:keep],
            self.end_of_turn_mask[:keep],
        )


def load_tokenizer(path: str, model_max_length: int | None = None) -> PreTrainedTokenizerBase:
    """A model's tokenizer, with a padding token (any will do, since masks never come from token values).

    Args:
        path: Model folder or hub name.
        model_max_length: The tokenizer's ``model_max_length``; None keeps its own.

    Raises:
        InputError: There is no tokenizer at ``path``.
    """
    own = {} if model_max_length is None else {"model_max_length": model_max_length}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="right", **own)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"no tokenizer at {path!r} ({error}); expected a model folder or hub name") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def tokenize_conversation(
    conversations: Sequence[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    num_images: int,
) -> TokenizedSample:
    """Token ids, labels and masks of one LLaVA conversation.

    Args:
        conversations: ``{"from": "human" | "gpt", "value": text}`` turns. A leading gpt turn and a last human turn
            without an answer are dropped.
        tokenizer: A fast tokenizer.
        template: The prompt template.
        num_images: Number of images of the conversation.

    Raises:
        InputError: The conversation is malformed, the number of ``<image>`` markers differs from the number of images,
            or the tokenizer has no character offsets.
    """
    turns = check_conversation(conversations, num_images)
    if template.captions_only and len(turns) != 2:
        raise EntryError(
            MALFORMED_CONVERSATION,
            f"the {template.name!r} template needs one human turn and one caption, but this conversation has "
            f"{len(turns)} turns; choose another --version",
        )
    return tokenize_segments(template.render(turns), tokenizer)


def tokenize_segments(segments: Sequence[Segment], tokenizer: PreTrainedTokenizerBase) -> TokenizedSample:
    """Token ids, labels and masks of rendered segments; the ids equal ``tokenizer_image_token`` on the joined text.

    Raises:
        InputError: The tokenizer is a slow one, without character offsets.
    """
    if not tokenizer.is_fast:
        raise InputError(
            f"the tokenizer {type(tokenizer).__name__} has no character offsets, which the label mask needs; "
            "load a fast tokenizer (use_fast=True, or a folder with tokenizer.json)"
        )
    chunks = _chunks_between_images(segments)
    texts = ["".join(segment.text for segment in chunk) for chunk in chunks]
    encoded = tokenizer(texts, return_offsets_mapping=True, return_attention_mask=False, verbose=False)
    first = encoded["input_ids"][0]
    has_bos = bool(first) and first[0] == tokenizer.bos_token_id

    ids: list[int] = []
    owners: list[Segment] = []
    for index, chunk in enumerate(chunks):
        if index:
            ids.append(IMAGE_TOKEN_INDEX)
            owners.append(_UNOWNED)
        skip = int(index > 0 and has_bos)  # each chunk was tokenised separately and has a BOS of its own
        ids += encoded["input_ids"][index][skip:]
        owners += _owners(chunk, encoded["offset_mapping"][index], encoded.sequence_ids(index))[skip:]

    input_ids = torch.tensor(ids, dtype=torch.long)
    is_target = torch.tensor([owner.is_target for owner in owners], dtype=torch.bool)
    is_target[:1] = False
    return TokenizedSample(
        input_ids=input_ids,
        labels=torch.where(is_target, input_ids, IGNORE_INDEX),
        instruction_mask=torch.tensor([owner.is_instruction for owner in owners], dtype=torch.bool),
        end_of_turn_mask=torch.tensor([owner.is_end_of_turn for owner in owners], dtype=torch.bool),
    )


_UNOWNED = Segment("")


def _chunks_between_images(segments: Sequence[Segment]) -> list[list[Segment]]:
    chunks: list[list[Segment]] = [[]]
    for segment in segments:
        if segment.is_image:
            chunks.append([])
        else:
            chunks[-1].append(segment)
    return chunks


def _owners(
    chunk: Sequence[Segment], offsets: Sequence[tuple[int, int]], sequence_ids: Sequence[int | None]
) -> list[Segment]:
    """The segment that contains each token's first character.

    Some tokenizers leave white space out of a token's offsets; a token is therefore taken to start no later than where
    the tokens before it end. Tokens that the tokenizer adds (BOS) belong to no segment.
    """
    starts = [0]
    for segment in chunk:
        starts.append(starts[-1] + len(segment.text))
    last = len(chunk) - 1
    covered = 0  # end of the tokens so far: white space before `start` may belong to the next token
    owners = []
    if not chunk:
        return [_UNOWNED] * len(offsets)
    for (start, end), sequence in zip(offsets, sequence_ids, strict=True):
        if sequence is None:
            owners.append(_UNOWNED)
            continue
        owners.append(chunk[min(bisect_right(starts, min(start, covered)) - 1, last)])
        covered = max(covered, end)
    return owners
