"""The candidate layout on examples worked out by hand."""

import pytest
import torch

from align_ti.candidates.layout import candidate_layout, supervised_tokens
from llava.errors import InputError

END = 2
# Row 0, padded right: prompt 5 6, response 7 8 END. Row 1, padded left: prompt 5, response 9 8, cut off.
LABELS = torch.tensor([[-100, -100, 7, 8, END, -100], [-100, -100, -100, -100, 9, 8]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1]], dtype=torch.bool)
POSITIONS = torch.tensor([[0, 1, 2, 3, 4, 4], [0, 0, 0, 0, 1, 2]])
DRAWS = torch.tensor(
    [
        [7, 9, 9, 3],  # one equal to the label, two alike
        [END, 8, 8, 8],  # one that ends the turn
        [END, END, 6, 4],  # the label ends the turn: drawing it counts nothing
        [4, 4, 4, 4],
        [8, 8, 3, 9],  # last token of a response that was cut off
    ]
)


def layout(**kwargs):
    supervised = supervised_tokens(LABELS, MASK)
    return candidate_layout(supervised, DRAWS, MASK, POSITIONS, end_of_turn_ids={END}, **kwargs)


def test_supervised_tokens():
    supervised = supervised_tokens(LABELS, MASK)
    assert len(supervised) == 5
    assert supervised.sample.tolist() == [0, 0, 0, 1, 1]
    assert supervised.column.tolist() == [2, 3, 4, 4, 5]
    assert supervised.label.tolist() == [7, 8, END, 9, 8]
    assert supervised.predicting.tolist() == [1, 2, 3, 6 + 3, 6 + 4]


def test_a_label_that_nothing_predicts_is_no_step():
    labels = LABELS.clone()
    labels[0, 0] = 5  # first column
    labels[1, 3] = 5  # first real token behind left padding
    labels[0, 5] = 5  # padding
    assert supervised_tokens(labels, MASK).column.tolist() == [2, 3, 4, 4, 5]
    assert labels[0, 0] == 5  # the input is left alone


def test_merged():
    merged = layout()
    rows = zip(
        merged.sample.tolist(), merged.limit.tolist(), merged.position_id.tolist(), merged.token.tolist(),
        merged.weight.tolist(), strict=True,
    )  # fmt: skip
    assert list(rows) == [
        (0, 2, 2, 3, 0.25),
        (0, 2, 2, 9, 0.5),
        (0, 4, 4, 4, 0.25),
        (0, 4, 4, 6, 0.25),
        (1, 4, 1, 4, 1.0),
        (1, 5, 2, 3, 0.25),
        (1, 5, 2, 9, 0.25),
    ]
    assert merged.main_weight.tolist() == [[0, 0, 0.25, 0.75, 0, 0], [0, 0, 0, 0, 0, 0.5]]
    assert merged.steps == 5


def test_unmerged():
    whole = layout(merge=False)
    assert whole.token.tolist() == DRAWS.flatten().tolist()
    assert whole.limit.view(5, 4)[:, 0].tolist() == [2, 3, 4, 4, 5]
    assert whole.position_id.view(5, 4)[:, 3].tolist() == [2, 3, 4, 1, 2]
    assert whole.weight.tolist() == [0.0 if token == END else 0.25 for token in DRAWS.flatten().tolist()]
    assert whole.main_weight.eq(0).all()


@pytest.mark.parametrize("merge", [True, False])
def test_both_forms_weigh_every_draw_once(merge):
    formed = layout(merge=merge, dtype=torch.float64)
    assert formed.weight.dtype == torch.float64
    kept = (DRAWS != END).sum() / 4
    assert formed.weight.sum() + formed.main_weight.sum() == kept


def test_without_end_of_turn_ids_all_draws_count():
    formed = candidate_layout(supervised_tokens(LABELS, MASK), DRAWS, MASK, POSITIONS)
    assert formed.weight.sum() + formed.main_weight.sum() == 5
    assert formed.main_weight[0, 4] == 0.5


@pytest.mark.parametrize("merge", [True, False])
def test_nothing_left_leaves_one_row_of_weight_zero(merge):
    labels = torch.full_like(LABELS, -100)
    empty = candidate_layout(
        supervised_tokens(labels, MASK), torch.empty(0, 4, dtype=torch.long), MASK, POSITIONS, merge=merge
    )
    all_ended = candidate_layout(
        supervised_tokens(LABELS, MASK), torch.full((5, 4), END), MASK, POSITIONS, end_of_turn_ids=[END]
    )
    for formed in (empty, all_ended):
        assert len(formed) == 1 and formed.weight.tolist() == [0]
        assert (formed.sample.item(), formed.limit.item(), formed.position_id.item()) == (0, 4, 4)
        assert formed.main_weight.eq(0).all()
    assert (empty.steps, all_ended.steps) == (0, 5)


def test_wrong_draws():
    supervised = supervised_tokens(LABELS, MASK)
    for draws in (DRAWS[:4], DRAWS[:, :0], DRAWS[:, 0]):
        with pytest.raises(InputError, match=r"expected \(5, d\)"):
            candidate_layout(supervised, draws, MASK, POSITIONS)
