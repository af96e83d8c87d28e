"""The checkpoints of a study: named on the command line, and prompted with the same template."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset
from transformers import PreTrainedTokenizerBase

from llava.conversation import Template, get_template
from llava.data.annotations.table import Annotations
from llava.data.collator import ConversationCollator
from llava.data.dataset import ConversationDataset
from llava.errors import InputError
from llava.inference.checkpoint import own_template
from llava.model.protocol import VisionLanguageModel, vision_tower_of


def parse_named(values: Sequence[str], flag: str) -> dict[str, str]:
    """``NAME=PATH`` words as name -> path, in their order.

    Args:
        values: The ``NAME=PATH`` words.
        flag: The flag they were given with, for error messages.

    Raises:
        InputError: A word without a name or a path, or a name given twice.
    """
    named: dict[str, str] = {}
    for value in values:
        name, _, path = value.partition("=")
        if not name or not path:
            raise InputError(f"{flag} {value!r}: expected NAME=PATH, a name for the results and a checkpoint")
        if name in named:
            raise InputError(f"{flag} names {name!r} twice ({named[name]} and {path}); give each its own name")
        named[name] = path
    return named


def parse_groups(values: Sequence[str], flag: str) -> dict[str, list[str]]:
    """``NAME=PATH`` words as name -> paths, for checkpoints that share a name and differ only in their seed.

    Args:
        values: The ``NAME=PATH`` words.
        flag: The flag they were given with, for error messages.

    Raises:
        InputError: A word without a name or a path.
    """
    groups: dict[str, list[str]] = {}
    for value in values:
        for name, path in parse_named([value], flag).items():
            groups.setdefault(name, []).append(path)
    return groups


def common_template(paths: Mapping[str, str], wanted: str | None = None) -> Template:
    """The prompt template that all checkpoints were trained with, so that all get the same prompts.

    Args:
        paths: Checkpoints by name.
        wanted: Name of a template to use instead.

    Raises:
        InputError: The checkpoints were trained with different templates, or there is no such template.
    """
    if wanted is not None:
        return get_template(wanted)
    tuned = {name: own_template(path) for name, path in paths.items()}
    templates = {name: get_template(template) for name, template in tuned.items()}
    first = next(iter(templates.values()))
    if any(template != first for template in templates.values()):
        found = ", ".join(f"{name}: {template}" for name, template in tuned.items())
        raise InputError(
            f"the checkpoints were trained with different prompt templates ({found}); choose one with --conv-mode"
        )
    return first


def data_batches(
    model: VisionLanguageModel,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    annotations: Annotations,
    image_folder: Path | None,
    size: int,
    seed: int,
) -> DataLoader:
    """Batches of a file's conversations in random order, prepared for a model.

    Args:
        model, tokenizer, template: The model, its tokenizer and its prompt template.
        annotations: The conversations.
        image_folder: Folder that image paths are relative to.
        size: Conversations per batch.
        seed: Random seed of the order.
    """
    if size < 1:
        raise InputError(f"--batch-size is {size}; it must be at least 1")
    tower = vision_tower_of(model)
    data = ConversationDataset(
        annotations,
        tokenizer,
        get_template(template),
        image_processor=tower.image_processor,
        image_folder=image_folder,
        image_aspect_ratio=getattr(model.config, "image_aspect_ratio", None),
        visual_tokens=tower.num_patches,
    )
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed)).tolist()
    return DataLoader(Subset(data, order), batch_size=size, collate_fn=ConversationCollator(tokenizer.pad_token_id))
