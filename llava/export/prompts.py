"""Tokenizers and processors: the ``<image>`` token, and a check that prompts have the same ids in both formats."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import (
    AddedToken,
    AutoTokenizer,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers import BaseImageProcessor as ImageProcessor

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX
from llava.conversation import ASSISTANT, HUMAN, Template
from llava.errors import InputError
from llava.export.chat_template import chat_template, messages_of
from llava.files import write_json, write_text
from llava.mm_utils import tokenizer_image_token

PROBES: tuple[list[tuple[str, str]], ...] = (
    [(HUMAN, "<image>\nWhat is in the picture?")],
    [(HUMAN, "Is it red?\n<image>"), (ASSISTANT, "No, it is blue."), (HUMAN, "Where?")],
    [(HUMAN, "<image><image>"), (ASSISTANT, "Two.")],
    [(HUMAN, "Hello.")],
)
"""Conversations used to compare the two tokenizations."""


def with_image_token(tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedTokenizerBase, int]:
    """A copy of a tokenizer that reads ``<image>`` as one token, and the token's id.

    An existing token keeps its id; a new one is added at the end.
    """
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens([AddedToken(DEFAULT_IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    tokenizer.padding_side = "left"  # needed for batched generation
    index = tokenizer.convert_tokens_to_ids(DEFAULT_IMAGE_TOKEN)
    assert isinstance(index, int)
    return tokenizer, index


def build_processor(
    tokenizer: PreTrainedTokenizerBase,
    tower: Any,
    image_processor: ImageProcessor,
    template: Template,
    config: PreTrainedConfig,
) -> Any:
    """transformers' processor: images, ``<image>`` expanded to the tower's number of tokens, chat template.

    Args:
        tokenizer: This package's tokenizer, as loaded.
        tower: The loaded tower.
        image_processor: Image processor from ``llava.export.pictures``.
        template: Prompt template that the model was trained with.
        config: This package's configuration (``mm_use_im_start_end``).

    Raises:
        InputError: Transformers' tokenization of a prompt differs from this package's.
    """
    extended, _ = with_image_token(tokenizer)
    drops_class_token = tower.has_class_token and tower.settings.select_feature == "patch"
    around = ("", "")
    if getattr(config, "mm_use_im_start_end", False):
        around = (DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN)
    marker = DEFAULT_IMAGE_TOKEN.join(around)
    # Llama's tokenizer adds a space only before the first word of a text, and not after <image>, where this package
    # starts a new text: for such tokenizers the chat template writes the space.
    for spaced in (False, True):
        processor = LlavaProcessor(
            image_processor=image_processor,
            tokenizer=extended,
            patch_size=tower.vision_tower.config.patch_size,
            vision_feature_select_strategy="default" if drops_class_token else "full",
            num_additional_image_tokens=int(tower.has_class_token),
            image_token=DEFAULT_IMAGE_TOKEN,
            chat_template=chat_template(template, marker, spaced),
        )
        difference = first_difference(processor, tokenizer, template, tower.num_patches, around)
        if difference is None:
            return processor
    raise InputError(
        f"transformers' tokenization of a prompt differs from this package's ({difference}): the tokenizer of class "
        f"{type(tokenizer).__name__} treats text behind <image> in a way that no chat template makes up for"
    )


def first_difference(
    processor: LlavaProcessor,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    visual_tokens: int,
    around: tuple[str, str] = ("", ""),
) -> str | None:
    """Compare prompt ids, with ``<image>`` expanded, with this package's; None if they are the same.

    Returns:
        The first prompt that differs, and both lists of ids from there on.
    """
    for turns in PROBES:
        text = processor.apply_chat_template(messages_of(turns), add_generation_prompt=len(turns) % 2 == 1)
        count = sum(turn.count(DEFAULT_IMAGE_TOKEN) for _, turn in turns)
        pictures = [Image.new("RGB", (40, 30))] * count
        theirs = processor(text=[text], images=[pictures] if pictures else None)["input_ids"][0]
        prompt = template.prompt(turns).replace(DEFAULT_IMAGE_TOKEN, DEFAULT_IMAGE_TOKEN.join(around))
        ours: list[int] = []
        for token in tokenizer_image_token(prompt, tokenizer):
            ours += [processor.image_token_id] * visual_tokens if token == IMAGE_TOKEN_INDEX else [int(token)]
        if list(theirs) != ours:
            start = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), 0)
            return f"{text!r}: {list(theirs)[start : start + 4]} there, {ours[start : start + 4]} here"
    return None


def save_without_image_token(tokenizer: PreTrainedTokenizerBase, image_token_id: int, folder: Path) -> Any:
    """Save a tokenizer without the ``<image>`` that transformers' format needs, and read it back.

    Only tokens at the end are removed (``<image>``, and a ``<pad>`` added after it), so that all other ids stay the
    same and the tokenizer equals the language model's own, which distillation compares.

    Args:
        tokenizer: Tokenizer of a checkpoint in transformers' format.
        image_token_id: Id of its image token.
        folder: Output folder.
    """
    tokenizer.padding_side = "right"
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    end = [(index, str(token)) for token, index in tokenizer.get_vocab().items() if index >= image_token_id]
    base = set(range(image_token_id)) <= set(tokenizer.get_vocab().values())
    file = folder / "tokenizer.json"
    if base and file.is_file() and all(token in (DEFAULT_IMAGE_TOKEN, "<pad>") for _, token in end):
        gone = {token for _, token in end}
        content = json.loads(file.read_text(encoding="utf-8"))
        kept = [token for token in content["added_tokens"] if token["content"] not in gone]
        if len(content["added_tokens"]) - len(kept) == len(gone):
            content["added_tokens"] = kept
            write_text(file, json.dumps(content, ensure_ascii=False, indent=2))  # as tokenizers writes it
            _drop_from_settings(folder / "tokenizer_config.json", gone)
    return AutoTokenizer.from_pretrained(folder)


def _drop_from_settings(file: Path, gone: set[str]) -> None:
    """Remove tokens from tokenizer_config.json: single values, list entries, and entries of the table by id."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    for key, value in list(settings.items()):
        if value in [*gone]:
            del settings[key]
        elif isinstance(value, list):
            settings[key] = [item for item in value if item not in [*gone]]
        elif key == "added_tokens_decoder":
            settings[key] = {index: token for index, token in value.items() if token["content"] not in gone}
    for key in ("processor_class", "model_specific_special_tokens"):
        settings.pop(key, None)
    write_json(file, settings, indent=2)
