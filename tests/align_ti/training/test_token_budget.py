"""A global batch in packed micro-batches of at most a number of tokens, against padded ones of a fixed size."""

import pytest

from align_ti.config import PAPER
from llava.data.token_budget import split_step
from tests.align_ti.training.whole_objective import TEACHER_HIDDEN, add, assert_same, settings, total


@pytest.mark.parametrize("budget", [1, 40, 60])
def test_filled_and_packed_equals_fixed_and_padded(budget, tiny_model, make_batch):
    models = tiny_model(), tiny_model(vocab=34, hidden=TEACHER_HIDDEN, layers=3, seed=1)
    batch = make_batch("right")
    rows = range(len(batch.ids))
    fixed = [total(*models, batch, settings(PAPER), rows=[*rows[start : start + 2]]) for start in rows[::2]]
    lengths = batch.attention_mask.sum(1).numpy()
    groups = [group for row in split_step(lengths, 2, budget, padded=False) for group in row if group]
    assert sorted(sum(groups, [])) == [*rows] and (len(groups) == len(rows)) == (budget == 1)
    filled = [total(*models, batch, settings(PAPER, packing=True), rows=group) for group in groups]
    assert_same(add(filled), add(fixed), tolerance=1e-12)
