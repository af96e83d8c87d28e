"""Micro-batches filled to a number of tokens: every sample once, within the budget, the same steps as without it."""

import itertools
import logging

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard, skip_first_batches
from torch.utils.data import BatchSampler, DataLoader

from llava.data.sampler import ModalityLengthSampler, ShuffleSampler
from llava.data.token_budget import TokenBudgetBatches, alike, balanced, split_step
from llava.errors import InputError

RNG = np.random.default_rng(0)
MIXED = np.concatenate([729 + RNG.integers(20, 300, 150), RNG.integers(5, 1500, 57)])
TEXT = RNG.integers(5, 1500, 130)


def cost(lengths, group, padded):
    return 0 if not group else len(group) * lengths[group].max() if padded else lengths[group].sum()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("ranks", "slots"), [(1, 1), (2, 3), (8, 2)])
@pytest.mark.parametrize("lengths", [MIXED, TEXT, MIXED[:3]], ids=["mixed", "text", "fewer than ranks"])
def test_every_sample_once_within_the_budget(lengths, ranks, slots, padded):
    budget = 3000
    batches = TokenBudgetBatches(
        ShuffleSampler(len(lengths), 5), lengths, 48, ranks, slots, budget=budget, padded=padded
    )
    items = list(batches)
    assert sorted(index for item in items for group in item for index in group) == list(range(len(lengths)))
    assert max(cost(lengths, group, padded) for item in items for group in item) <= budget
    assert len(items) == len(batches) == ranks * slots * -(-len(lengths) // 48)
    rows = [items[start : start + ranks] for start in range(0, len(items), ranks)]
    steps = [rows[start : start + slots] for start in range(0, len(rows), slots)]
    order = list(ShuffleSampler(len(lengths), 5))
    for number, step in enumerate(steps):
        counts = [[len(item) for item in slot] for slot in step]
        assert all(len(set(slot)) == 1 for slot in counts), "ranks run equally many micro-batches"
        assert counts[-1][0] > 0, "the item after which the optimizer steps is never empty"
        members = [index for slot in step for item in slot for group in item for index in group]
        assert set(members) == set(order[number * 48 : (number + 1) * 48]), "a step's samples are those without budget"


@pytest.mark.parametrize("padded", [False, True])
def test_as_few_micro_batches_as_possible(padded):
    """Against all ways of dealing five samples to micro-batches."""
    rng = np.random.default_rng(1)
    for _ in range(25):
        lengths, budget = rng.integers(1, 12, 5), 14
        fewest = min(
            len(set(way))
            for way in itertools.product(range(5), repeat=5)
            if all(cost(lengths, [i for i in range(5) if way[i] == g], padded) <= budget for g in set(way))
        )
        assert len(split_step(lengths, 1, budget, padded)) == fewest


@pytest.mark.parametrize("split", [balanced, alike])
def test_splits_by_hand(split):
    lengths = [9, 7, 6, 5, 4, 3]
    found = split(lengths, 3, 15)
    expected = {balanced: [[0, 5], [1, 4], [2, 3]], alike: [[0], [1, 2], [3, 4, 5]]}[split]
    assert sorted(sorted(group) for group in found) == expected
    assert split([9, 7, 6, 5, 4, 3], 2, 14) is None


def test_best_fit_where_the_emptiest_micro_batch_gets_too_full():
    """6 + 4 and 5 + 3 + 2 fill two micro-batches of 10 exactly; giving 3 to the emptier one does not."""
    found = balanced([6, 5, 4, 3, 2], 2, 10)
    assert sorted(sorted(group) for group in found) == [[0, 2], [1, 3, 4]]


@pytest.mark.parametrize("padded", [False, True])
def test_a_longer_sample_is_alone_and_named_once(padded, caplog):
    lengths = np.array([10, 50, 8, 9, 60, 4, 5, 7])
    with caplog.at_level(logging.WARNING):
        batches = TokenBudgetBatches(ShuffleSampler(8), lengths, 8, 2, budget=30, padded=padded)
        for _ in range(2):
            (step,) = batches.steps()
    assert caplog.text.count("2 of 8 samples have more tokens than --max_tokens_per_batch 30, the longest 60") == 1
    groups = [group for row in step for group in row]
    assert [1] in groups and [4] in groups
    assert all(cost(lengths, group, padded) <= 30 for group in groups if group not in ([1], [4]))


def test_ranks_are_balanced_and_padding_is_saved():
    lengths = np.tile(MIXED, 8)
    order = ShuffleSampler(len(lengths), 1)
    packed = TokenBudgetBatches(order, lengths, 128, 8, 2, budget=8192)
    sums = np.array([[[lengths[group].sum() for group in row] for row in step] for step in packed.steps()][:-1])
    assert (sums.max(2) / sums.mean(2)).mean() < 1.05, "at the same time"
    padded = TokenBudgetBatches(order, lengths, 128, 8, 2, budget=8192, padded=True)
    wide = sum(cost(lengths, group, True) for step in padded.steps() for row in step for group in row)
    usual = sum(cost(lengths, group, True) for group in BatchSampler(order, 8, drop_last=False))
    assert wide < 1.1 * lengths.sum() < 1.3 * lengths.sum() < usual


def test_grouping_by_modality_stays():
    signed = np.concatenate([MIXED[:96], -TEXT[:96]])
    sampler = ModalityLengthSampler(signed, 8, 4, seed=2)
    batches = TokenBudgetBatches(sampler, np.abs(signed), 32, 2, 2, budget=4000)
    for step in batches.steps():
        members = [index for row in step for group in row for index in group]
        assert abs(np.sign(signed[members]).sum()) == 32


def test_the_order_depends_on_seed_and_epoch_and_resumes_exactly():
    """As accelerate gives it to a rank, from the beginning and after skipping the items of five steps."""

    def items(seed, epoch, skipped=0):
        sampler = ShuffleSampler(len(MIXED), seed)
        sampler.set_epoch(epoch)
        batches = TokenBudgetBatches(sampler, MIXED, 16, 2, 3, budget=3000)
        shard = BatchSamplerShard(batches, num_processes=2, process_index=1)
        loader = DataLoader(range(len(MIXED)), batch_sampler=shard, collate_fn=list)
        loader = skip_first_batches(loader, skipped)
        return [batch for batch in loader.batch_sampler]

    whole = items(0, 1)
    assert len(whole) == 13 * 3
    assert items(0, 1) == whole and items(0, 1, 15) == whole[15:]
    assert items(0, 0) != whole != items(1, 1)


def test_drop_last_and_bad_sizes():
    batches = TokenBudgetBatches(ShuffleSampler(len(TEXT)), TEXT, 48, budget=3000, drop_last=True)
    assert sum(len(group) for item in batches for group in item) == len(TEXT) // 48 * 48
    with pytest.raises(InputError, match="expected at least 1"):
        TokenBudgetBatches(ShuffleSampler(4), TEXT[:4], 2, budget=0)
    with pytest.raises(InputError, match="nothing is left"):
        TokenBudgetBatches(ShuffleSampler(4), TEXT[:4], 8, budget=3000, drop_last=True)
