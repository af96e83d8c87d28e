"""The order of samples in an epoch: shuffled, or grouped by modality with even work per rank.

The order depends only on the seed and the epoch, so it is the same on every rank and after resuming. Ranks take the
batches in turn, as in ``transformers.Trainer``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import TrainingArguments
from transformers.trainer_callback import TrainerCallback, TrainerControl, TrainerState

from llava.errors import InputError


class ShuffleSampler(Sampler[int]):
    """All samples in random order, a different one in each epoch.

    Args:
        size: Number of samples.
        seed: Random seed; each epoch derives its own from it.

    Raises:
        InputError: There are no samples.
    """

    def __init__(self, size: int, seed: int = 0):
        if size < 1:
            raise InputError("the sampler needs at least one sample")
        self._size = size
        self._seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[int]:
        yield from self.order().tolist()

    def order(self) -> np.ndarray:
        """Sample indices of the current epoch in order, int64 ``[len(self)]``."""
        return torch.randperm(self._size, generator=self._generator()).numpy()

    def _generator(self) -> torch.Generator:
        # Hashed rather than added: seed 0 in epoch 1 must not have the order of seed 1 in epoch 0.
        state = np.random.SeedSequence([self._seed, self.epoch]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


class ModalityLengthSampler(ShuffleSampler):
    """Shuffled order in which a mega-batch is either all multimodal or all text.

    A mega-batch is the input of one optimizer step on all ranks: ``batches_per_step`` batches of ``batch_size``
    samples. Its samples are drawn at random from one modality and distributed over the batches by length, back and
    forth, so that all batches of a step cost about the same. Mega-batches are in random order. Samples that do not
    fill a mega-batch come last, multimodal ones first. This is the grouping of LLaVA's ``group_by_modality_length``,
    vectorised because an epoch may have millions of samples.

    Args:
        lengths: Signed lengths, positive with images and negative for text only (``Annotations.lengths``).
        batch_size: Samples per batch on one rank.
        batches_per_step: Number of ranks times gradient accumulation steps.
        seed: Random seed; each epoch derives its own from it.
        window: Number of mega-batches over which samples are sorted by length before they are distributed. 1 is
            LLaVA's grouping. A larger window makes the lengths in a batch more alike: less padding, less mixing.

    Raises:
        InputError: There are no lengths, a length is 0, or a size is below 1.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        batch_size: int,
        batches_per_step: int = 1,
        seed: int = 0,
        window: int = 1,
    ):
        super().__init__(len(lengths), seed)
        self._lengths = np.asarray(lengths, dtype=np.int64)
        if not self._lengths.all():
            raise InputError(
                f"sample {int(np.flatnonzero(self._lengths == 0)[0])} has length 0; lengths are at least 1"
            )
        if batch_size < 1 or batches_per_step < 1 or window < 1:
            raise InputError(
                f"batch_size {batch_size}, batches_per_step {batches_per_step} and window {window} must be at least 1"
            )
        self._window = window
        self._batch_size = batch_size
        self._batches_per_step = batches_per_step

    def order(self) -> np.ndarray:
        """Sample indices of the current epoch in order, int64 ``[len(self)]``."""
        generator = self._generator()
        size = self._batch_size * self._batches_per_step
        # Each modality is cut into whole mega-batches before these are shuffled, so that only the last steps
        # can mix the two: with images on one rank and text on another, all wait for the slower one.
        mega_batches, leftovers = [], []
        for members in (np.flatnonzero(self._lengths > 0), np.flatnonzero(self._lengths < 0)):
            shuffled = members[torch.randperm(len(members), generator=generator).numpy()]
            count = len(shuffled) // size
            mega_batches.append(self._deal(self._sort_windows(shuffled[: count * size]).reshape(count, size)))
            leftovers.append(shuffled[count * size :])
        grouped = np.concatenate(mega_batches)
        grouped = grouped[torch.randperm(len(grouped), generator=generator).numpy()]
        return np.concatenate([grouped.reshape(-1), *leftovers])

    def _sort_windows(self, samples: np.ndarray) -> np.ndarray:
        """Sort the samples by length within each window of mega-batches, longest first."""
        window = np.arange(len(samples)) // (self._window * self._batch_size * self._batches_per_step)
        return samples[np.lexsort((-np.abs(self._lengths[samples]), window))]

    def _deal(self, mega_batches: np.ndarray) -> np.ndarray:
        """Sort every row of ``[M, size]`` by length, longest first, and distribute it over the batches, back and
        forth."""
        by_length = np.argsort(-np.abs(self._lengths)[mega_batches], axis=1, kind="stable")
        rows = np.take_along_axis(mega_batches, by_length, axis=1)
        # Lengths 9 8 7 6 5 4 for two batches: 9 to the first and 8 to the second, then back, 7 to the second and 6 to
        # the first, then 5 and 4. The sums are 20 and 19; always in the same direction they would be 21 and 18.
        rounds = rows.reshape(len(rows), self._batch_size, self._batches_per_step)
        rounds[:, 1::2] = rounds[:, 1::2, ::-1].copy()  # a copy, as source and target overlap
        return rounds.transpose(0, 2, 1).reshape(rows.shape)


class SetEpoch(TrainerCallback):
    """Sets the sampler's epoch when an epoch begins.

    ``Trainer`` does this too, except when several ranks resume within an epoch: accelerate then wraps the batch
    sampler twice, ``set_epoch`` no longer reaches the sampler, and it would repeat the first epoch's order.

    Args:
        sampler: The training sampler.
    """

    def __init__(self, sampler: ShuffleSampler):
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the epoch from ``state.epoch``, which has a fractional part after resuming within an epoch."""
        # The fraction is a quotient of steps, and may be a rounding error below a whole number.
        self.sampler.set_epoch(int((state.epoch or 0) + 1e-6))
