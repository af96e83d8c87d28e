"""The expensive checks, run in worker processes: opening images and tokenising conversations."""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from llava.conversation import get_template
from llava.data.annotations.entry import EntryError
from llava.data.check.report import MISSING_IMAGE, TOO_LONG, UNREADABLE_IMAGE, Finding
from llava.data.images import verify_image
from llava.data.tokenize import load_tokenizer, tokenize_conversation
from llava.errors import InputError


@dataclass(frozen=True)
class Settings:
    """Settings of the workers; small, because they are sent with every batch.

    Attributes:
        tokenizer: Folder or hub name of the tokenizer; None to skip the check of lengths.
        template: Name of the prompt template.
        max_length: Maximum number of positions of a sample; None for no limit.
        visual_tokens: Number of positions of an image.
    """

    tokenizer: str | None = None
    template: str = "qwen"
    max_length: int | None = None
    visual_tokens: int = 729


@dataclass
class Sample:
    """A usable entry that needs the expensive checks.

    Attributes:
        where: Its location in the file, as text.
        conversations: Its turns.
        num_images: Number of its images.
        image_files: Those of its images that did not occur in an earlier entry.
    """

    where: str
    conversations: list[dict[str, str]]
    num_images: int
    image_files: list[Path] = field(default_factory=list)


def examine(settings: Settings, samples: list[Sample]) -> tuple[list[Finding], list[int]]:
    """Findings about a batch of samples, and each sample's number of positions (empty without a tokenizer)."""
    findings: list[Finding] = []
    positions: list[int] = []
    for sample in samples:
        for file in sample.image_files:
            findings += _image(sample.where, file)
        if settings.tokenizer is not None:
            _length(settings, settings.tokenizer, sample, findings, positions)
    return findings, positions


kept_tokenizer = lru_cache(maxsize=1)(load_tokenizer)
"""The tokenizer of a model folder or hub name, loaded once per process."""


def _image(where: str, file: Path) -> list[Finding]:
    if not file.is_file():
        return [Finding(MISSING_IMAGE, where, str(file))]
    try:
        verify_image(file)
    except InputError as error:
        return [Finding(UNREADABLE_IMAGE, where, str(error))]
    return []


def _length(settings: Settings, tokenizer: str, sample: Sample, findings: list[Finding], positions: list[int]) -> None:
    try:
        tokens = tokenize_conversation(
            sample.conversations,
            kept_tokenizer(tokenizer),
            get_template(settings.template),
            sample.num_images,
        )
        length = tokens.spliced_length(settings.visual_tokens)
        positions.append(length)
        if settings.max_length is not None and length > settings.max_length:
            tokens.truncate(settings.max_length, settings.visual_tokens)
            findings.append(Finding(TOO_LONG, sample.where, f"{length} positions, cut to {settings.max_length}"))
    except EntryError as error:
        findings.append(Finding(error.kind, sample.where, str(error)))
