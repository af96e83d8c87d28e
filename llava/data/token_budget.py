"""The samples of an optimizer step in micro-batches of at most a number of tokens.

The order of samples, and which of them share an optimizer step, is that of the sampler: a step trains on the same
samples as with micro-batches of a fixed size. Only their split into micro-batches differs. Losses are means over the
step, so this changes nothing but speed.
"""

import heapq
import logging
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from llava.data.sampler import ShuffleSampler
from llava.errors import InputError

logger = logging.getLogger(__name__)

Groups = list[list[int]]
"""Places of samples in a list, micro-batch by micro-batch."""


def balanced(lengths: Sequence[int], number: int, budget: int) -> Groups | None:
    """Distribute samples over micro-batches without padding, so that their tokens are about equal.

    Longest first: each to the micro-batch with the fewest tokens, or, if one gets too full that way, to the fullest one
    that still has room (best fit).

    Args:
        lengths: Tokens, in descending order.
        number: Micro-batches, at least 1; some may stay empty.
        budget: Most tokens of a micro-batch; only a single sample may exceed it.

    Returns:
        ``number`` groups, or None if the samples do not fit.
    """
    alone = sum(length > budget for length in lengths)
    if alone > number or (alone == number and alone < len(lengths)):
        return None
    groups: Groups = [[place] for place in range(alone)]
    rest = range(alone, len(lengths))
    found = _emptiest_first(lengths, rest, number - alone, budget) or _best_fit(lengths, rest, number - alone, budget)
    return None if found is None else groups + found


def _emptiest_first(lengths: Sequence[int], places: Sequence[int], number: int, budget: int) -> Groups | None:
    groups: Groups = [[] for _ in range(number)]
    heap = [(0, group) for group in range(number)]
    for place in places:
        tokens, group = heap[0]
        if tokens + lengths[place] > budget:
            return None
        heapq.heapreplace(heap, (tokens + lengths[place], group))
        groups[group].append(place)
    return groups


def _best_fit(lengths: Sequence[int], places: Sequence[int], number: int, budget: int) -> Groups | None:
    groups: Groups = [[] for _ in range(number)]
    room = [(budget, group) for group in range(number)]  # in ascending order
    for place in places:
        fullest = bisect_left(room, (lengths[place], -1))
        if fullest == len(room):
            return None
        left, group = room.pop(fullest)
        insort(room, (left - lengths[place], group))
        groups[group].append(place)
    return groups


def alike(lengths: Sequence[int], number: int, budget: int) -> Groups | None:
    """Distribute samples over micro-batches that are padded to their longest sample.

    Samples of similar length share a micro-batch. The number of tokens, padding included, is as even as this allows.

    Args, Returns:
        As in :func:`balanced`.
    """
    if _runs(lengths, budget, number) is None:
        return None
    low, high = 1, budget  # the smallest limit under which the samples fit
    while low < high:
        middle = (low + high) // 2
        if _runs(lengths, middle, number) is None:
            low = middle + 1
        else:
            high = middle
    starts = _runs(lengths, high, number)
    assert starts is not None
    edges = [*starts, len(lengths)]
    groups = [list(range(start, stop)) for start, stop in zip(edges, edges[1:], strict=False)]
    while len(groups) < number and any(len(group) > 1 for group in groups):
        largest = max(groups, key=lambda group: (len(group) > 1) * len(group) * lengths[group[0]])
        groups.remove(largest)
        groups += [largest[: len(largest) // 2], largest[len(largest) // 2 :]]
    return groups + [[] for _ in range(number - len(groups))]


def _runs(lengths: Sequence[int], limit: int, number: int) -> list[int] | None:
    """Starts of the runs when each takes as many samples as ``limit`` allows; None if more than ``number``."""
    starts: list[int] = []
    place = 0
    while place < len(lengths):
        if len(starts) == number:
            return None
        starts.append(place)
        place += max(1, limit // lengths[place])
    return starts


def split_step(lengths: np.ndarray, ranks: int, budget: int, padded: bool) -> list[Groups]:
    """Split the samples of an optimizer step into micro-batches, the same number on every rank and as few as possible.

    Args:
        lengths: Tokens of its samples, int ``[G]``.
        ranks: Number of ranks.
        budget: Most tokens of a micro-batch; a longer sample is alone in its micro-batch.
        padded: Whether a micro-batch is padded to its longest sample, and its padding counts.

    Returns:
        Places in ``lengths`` by micro-batch and rank. Micro-batches that run at the same time have about equally many
        tokens. A rank without a sample has an empty list: then the step has fewer samples than ranks, or barely more.
    """
    order = np.argsort(-lengths, kind="stable")
    ordered = lengths[order].tolist()
    split = alike if padded else balanced
    number = 1 if padded else max(1, -(-sum(ordered) // (ranks * budget)))
    groups = split(ordered, ranks * number, budget)
    while groups is None:
        number += 1
        groups = split(ordered, ranks * number, budget)

    def tokens(group: list[int]) -> int:
        if padded:
            return len(group) * max((ordered[place] for place in group), default=0)
        return sum(ordered[place] for place in group)

    groups.sort(key=tokens, reverse=True)
    batches = []
    for first in range(0, len(groups), ranks):
        row = [sorted(order[group].tolist()) for group in groups[first : first + ranks]]
        batches.append(row[::-1] if first // ranks % 2 else row)  # back and forth: ranks have equal sums
    return batches


class TokenBudgetBatches(Sampler[Groups]):
    """Micro-batches of an epoch for a ``DataLoader``'s ``batch_sampler``, of which the ranks take items in turn.

    Each optimizer step is ``slots`` items a rank, however many micro-batches it has: an item is a list of any number of
    micro-batches, and these are lists of sample indices. So the number of items is known, and a run can resume by
    counting them. The last item of a step is never empty. A micro-batch without samples only keeps its rank in step.

    Args:
        sampler: The order of samples.
        lengths: Tokens of every sample, see ``llava.data.lengths``.
        samples: Samples of an optimizer step on all ranks; the last step of an epoch has the rest.
        ranks: Number of ranks.
        slots: Items per optimizer step on one rank: the gradient accumulation steps.
        budget: Most tokens of a micro-batch.
        padded: See :func:`split_step`.
        drop_last: Whether an epoch ends before a step that has fewer samples.

    Raises:
        InputError: ``budget`` is below 1, or ``drop_last`` leaves no step.
    """

    def __init__(
        self,
        sampler: ShuffleSampler,
        lengths: np.ndarray,
        samples: int,
        ranks: int = 1,
        slots: int = 1,
        *,
        budget: int,
        padded: bool = False,
        drop_last: bool = False,
    ):
        if budget < 1:
            raise InputError(f"the token budget of a micro-batch is {budget}; expected at least 1")
        self._sampler, self._lengths = sampler, lengths
        self._samples, self._ranks, self._slots = samples, ranks, slots
        self._budget, self._padded = budget, padded
        self._steps = len(sampler) // samples if drop_last else -(-len(sampler) // samples)
        if not self._steps:
            raise InputError(
                f"the data have {len(sampler)} samples, an optimizer step takes {samples}, and --dataloader_drop_last "
                "leaves out the last, smaller step: nothing is left to train on"
            )
        longer = int((lengths > budget).sum())
        if longer:
            logger.warning(
                "%d of %d samples have more tokens than --max_tokens_per_batch %d, the longest %d: each is a "
                "micro-batch of its own",
                longer,
                len(lengths),
                budget,
                int(lengths.max()),
            )

    def __len__(self) -> int:
        return self._steps * self._slots * self._ranks

    def __iter__(self) -> Iterator[Groups]:
        for batches in self.steps():
            # Two micro-batches in four slots: 0 1 0 1; five in two: 2 3.
            edges = [len(batches) * slot // self._slots for slot in range(self._slots + 1)]
            for start, stop in zip(edges, edges[1:], strict=False):
                for rank in range(self._ranks):
                    yield [batches[number][rank] for number in range(start, stop)]

    def steps(self) -> Iterator[list[Groups]]:
        """Sample indices of the current epoch by optimizer step, micro-batch and rank."""
        order = self._sampler.order()
        for step in range(self._steps):
            members = order[step * self._samples : (step + 1) * self._samples]
            split = split_step(self._lengths[members], self._ranks, self._budget, self._padded)
            yield [[members[group].tolist() for group in row] for row in split]


class MicroBatches(Dataset):
    """A data set whose index is a list of sample indices, and an item the list of their samples.

    Args:
        samples: The data set of single samples.
    """

    def __init__(self, samples: Any):
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, indices: list[int]) -> list[Any]:
        return [self.samples[index] for index in indices]


class CollateEach:
    """Collates each micro-batch of an item.

    Args:
        collator: Makes a batch of a list of samples, which may be empty.
    """

    def __init__(self, collator: Callable[[list[Any]], Any]):
        self.collator = collator

    def __call__(self, item: list[list[Any]]) -> list[Any]:
        return [self.collator(samples) for samples in item]
