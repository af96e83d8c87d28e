"""The data that the losses of a step read: hidden states of both models, the batch, and the global denominators."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from align_ti.attention.packing import Packing, samples_of
from align_ti.candidates.layout import CandidateLayout, SupervisedTokens
from align_ti.candidates.noise import SampleNoise
from align_ti.transfer import send
from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.splice import SplicedBatch

ON_POLICY = "on_policy"
"""Key of a collated batch whose responses the student sampled."""


class Denominator(Enum):
    """What a loss is a mean over; all count the global batch (every rank, every accumulation step)."""

    TOKENS = "tokens"
    """Supervised tokens."""
    INSTRUCTED_IMAGES = "instructed_images"
    """Samples with an image and an instruction."""
    IMAGES = "images"
    """Samples with an image."""


class Counts(NamedTuple):
    """The denominators, a scalar tensor each; see ``Denominator``."""

    tokens: Tensor
    instructed_images: Tensor
    images: Tensor

    def of(self, denominator: Denominator) -> Tensor:
        """The value of one denominator."""
        return getattr(self, denominator.value)


def instructed_images(batch: Mapping[str, Any]) -> Tensor:
    """Samples of a collated batch with an image and an instruction. Integer scalar."""
    return (_has_image(batch) & batch["instruction_mask"].any(1)).sum()


def images(batch: Mapping[str, Any]) -> Tensor:
    """Samples of a collated batch with an image. Integer scalar."""
    return _has_image(batch).sum()


def _has_image(batch: Mapping[str, Any]) -> Tensor:
    return (batch["input_ids"] == IMAGE_TOKEN_INDEX).any(1)


@dataclass
class Passes:
    """Hidden states of one step: ``main`` ``[B * S, D]`` and ``candidates`` ``[C, D]`` of both models; ``attention``
    ``[B, S]`` is the map that weighs visual tokens; ``listed_layout`` is ``layout`` on the CPU."""

    student_main: Tensor
    teacher_main: Tensor | None
    student_candidates: Tensor | None = None
    teacher_candidates: Tensor | None = None
    layout: CandidateLayout | None = None
    listed_layout: CandidateLayout | None = None
    attention: Tensor | None = None

    @property
    def rows(self) -> int:
        """Rows of main path and candidates, concatenated: ``B * S + C``."""
        return len(self.student_main) + (0 if self.student_candidates is None else len(self.student_candidates))

    def gathered(self, used: Tensor) -> tuple[Tensor, Tensor]:
        """Rows ``used`` (long ``[R]``, into those ``B * S + C``) of student and teacher, ``[R, D]`` each."""
        assert self.teacher_main is not None
        return (
            _rows(self.student_main, self.student_candidates, used),
            _rows(self.teacher_main, self.teacher_candidates, used),
        )


def _rows(main: Tensor, candidates: Tensor | None, used: Tensor) -> Tensor:
    # One gather from both, whose backward adds rows: sorting them by where they lie would wait for the device.
    return (main if candidates is None else torch.cat([main, candidates])).index_select(0, used)


@dataclass(frozen=True)
class MicroBatch:
    """What the losses read besides hidden states.

    Attributes:
        inputs: The student's inputs, packed or padded.
        host: The same on the CPU, without embeddings.
        listed: The tokens to predict, on the CPU.
        counts: The denominators.
        packing: Packing of the row, if it is packed.
        on_policy: Whether the student sampled the responses.
        numbers: Random numbers of its samples.
    """

    inputs: SplicedBatch
    host: SplicedBatch
    listed: SupervisedTokens
    counts: Counts
    packing: Packing | None = None
    on_policy: bool = False
    numbers: SampleNoise | None = None

    @cached_property
    def supervised(self) -> SupervisedTokens:
        """The tokens to predict, on the batch's device."""
        return self.listed.to(self.inputs.labels.device)

    @cached_property
    def visual_places(self) -> tuple[Tensor, Tensor]:
        """The visual tokens in reading order: their index into ``[B * S]`` and their sample, both long ``[R]``."""
        index = send(self.host.visual_mask.flatten().nonzero().flatten(), self.inputs.labels.device)
        return index, self.samples(index)

    @cached_property
    def most_visual(self) -> int:
        """The largest number of visual tokens of a sample."""
        mask = self.host.visual_mask
        samples = mask if self.packing is None else [mask[0, start:stop] for start, stop in self.packing.spans]
        return max(int(row.sum()) for row in samples)

    def samples(self, index: Tensor) -> Tensor:
        """The sample of each place, long ``[R]``; ``index`` is long ``[R]`` into ``[B * S]``."""
        return samples_of(index, self.inputs.visual_mask.shape[1], self.packing)

    def by_sample(self, index: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Places in a table with a row for each sample, and its shape.

        Args:
            index: Long ``[R]`` into ``[B * S]``.

        Returns:
            Long ``[R]`` into ``[samples * longest]``, and ``(samples, longest)``.
        """
        if self.packing is None:
            samples, longest = self.inputs.visual_mask.shape
            return index, (samples, longest)
        sample, longest = self.samples(index), max(stop - start for start, stop in self.packing.spans)
        return sample * longest + index - self.packing.bounds[sample], (len(self.packing.spans), longest)

    def index_of(self, columns: Tensor) -> Tensor:
        """The inverse: columns of that table, long ``[samples, n]``, to ``[B * S]``; any place for empty columns."""
        if self.packing is None:
            samples, longest = self.inputs.visual_mask.shape
            return columns + longest * torch.arange(samples, device=columns.device)[:, None]
        return (columns + self.packing.bounds[:-1, None]).clamp(max=self.inputs.visual_mask.shape[1] - 1)
