"""The order of an epoch: batches of one modality, with their work spread evenly over ranks."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler

from llava.errors import InputError


class ModalityLengthSampler(Sampler[int]):
    """Shuffled order in which a mega-batch is either all multimodal or all text.

    A mega-batch is what all ranks take in one optimiser step: ``batches_per_step`` batches of ``batch_size``.
    Its samples are drawn at random from one modality and dealt out to the batches by length, back and forth,
    so that all batches of a step cost about the same. Mega-batches come in random order. The samples that do
    not fill one come last, multimodal first. This is the grouping of LLaVA's ``group_by_modality_length``,
    dealt out in vectorised form since an epoch may have millions of samples.

    The order depends on ``seed`` and epoch alone: it is the same on every rank and after resuming. Several
    ranks share it by taking the batches in turn, as ``transformers.Trainer`` does.

    Args:
        lengths: signed lengths, positive with images and negative for text only (``Annotations.lengths``).
        batch_size: samples of a batch on one rank.
        batches_per_step: ranks times gradient accumulation steps.
        seed: makes the order.

    Raises:
        InputError: no lengths, a length of 0, or sizes below 1.
    """

    def __init__(
        self, lengths: Sequence[int] | np.ndarray, batch_size: int, batches_per_step: int = 1, seed: int = 0
    ):
        self._lengths = np.asarray(lengths, dtype=np.int64)
        if self._lengths.ndim != 1 or not len(self._lengths):
            raise InputError("the sampler needs the length of at least one sample")
        if not self._lengths.all():
            raise InputError(
                f"sample {int(np.flatnonzero(self._lengths == 0)[0])} has length 0; lengths are at least 1"
            )
        if batch_size < 1 or batches_per_step < 1:
            raise InputError(
                f"batch_size {batch_size} and batches_per_step {batches_per_step} must be at least 1"
            )
        self._batch_size = batch_size
        self._batches_per_step = batches_per_step
        self._seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives; ``Trainer`` calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        yield from self.order().tolist()

    def order(self) -> np.ndarray:
        """Indices of the current epoch in order, int64 ``[len(self)]``."""
        state = np.random.SeedSequence([self._seed, self.epoch]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
        mega_batches, leftovers = [], []
        for members in (np.flatnonzero(self._lengths > 0), np.flatnonzero(self._lengths < 0)):
            shuffled = members[torch.randperm(len(members), generator=generator).numpy()]
            size = self._batch_size * self._batches_per_step
            full = len(shuffled) // size * size
            mega_batches.append(self._deal(shuffled[:full].reshape(-1, size)))
            leftovers.append(shuffled[full:])
        grouped = np.concatenate(mega_batches)
        grouped = grouped[torch.randperm(len(grouped), generator=generator).numpy()]
        return np.concatenate([grouped.reshape(-1), *leftovers])

    def _deal(self, mega_batches: np.ndarray) -> np.ndarray:
        """Sort every row ``[M, size]`` by length, longest first, and deal it out to the batches back and
        forth."""
        by_length = np.argsort(-np.abs(self._lengths)[mega_batches], axis=1, kind="stable")
        rows = np.take_along_axis(mega_batches, by_length, axis=1)
        rounds = rows.reshape(-1, self._batch_size, self._batches_per_step)
        rounds[:, 1::2] = rounds[:, 1::2, ::-1].copy()
        return rounds.transpose(0, 2, 1).reshape(len(mega_batches), -1)
