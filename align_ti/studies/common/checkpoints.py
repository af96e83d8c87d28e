"""The checkpoints of an analysis: named on the command line, asked in one template."""

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
        values: the words.
        flag: they were given with, for the messages.

    Raises:
        InputError: a word without a name or a path, or a name given twice.
    """
    named: dict[str, str] = {}
    for value in values:
        name, _, path = value.partition("=")
        if not name or not path:
            raise InputError(f"{flag} {value!r}: expected NAME=PATH, a name for the results and a checkpoint")
        if name in named:
            raise InputError(f"{flag} names {name!r} twice ({named[name]} and {path}); give each a name of its own")
        named[name] = path
    return named


def parse_groups(values: Sequence[str], flag: str) -> dict[str, list[str]]:
    """``NAME=PATH`` words as name -> paths, for checkpoints that differ by their seed alone and share a name.

    Args:
        values: the words.
        flag: they were given with, for the messages.

    Raises:
        InputError: a word without a name or a path.
    """
    groups: dict[str, list[str]] = {}
    for value in values:
        for name, path in parse_named([value], flag).items():
            groups.setdefault(name, []).append(path)
    return groups


def common_template(paths: Mapping[str, str], wanted: str | None = None) -> Template:
    """The prompt template that all checkpoints were tuned with, so that all get the same prompts.

    Args:
        paths: checkpoints by name.
        wanted: this template, whatever they were tuned with.

    Raises:
        InputError: they were tuned with different ones, or there is no such template.
    """
    if wanted is not None:
        return get_template(wanted)
    tuned = {name: own_template(path) for name, path in paths.items()}
    templates = {name: get_template(template) for name, template in tuned.items()}
    first = next(iter(templates.values()))
    if any(template != first for template in templates.values()):
        found = ", ".join(f"{name}: {template}" for name, template in tuned.items())
        raise InputError(
            f"the checkpoints were tuned with different prompt templates ({found}); say with --conv-mode which to use"
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
    """The conversations of a file in random order, as a model reads them.

    Args:
        model, tokenizer, template: who reads.
        annotations: the file.
        image_folder: where paths of its pictures start.
        size: conversations a batch.
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
