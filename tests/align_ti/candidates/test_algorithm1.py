"""The interleaved sequence and its mask, against a drawing and against the definition."""

import pytest
import torch

from align_ti.candidates.algorithm1 import ribbon_sequence, single_pass
from align_ti.candidates.layout import candidate_layout, supervised_tokens
from llava.errors import InputError


def form(labels, mask, positions, draws):
    supervised = supervised_tokens(labels, mask)
    return candidate_layout(supervised, draws, mask, positions, merge=False)


def test_the_ribbon_of_a_small_example():
    labels = torch.tensor([[-100, 7, 8]])  # x, y1, y2 with d = 2
    mask, positions = torch.ones(1, 3, dtype=torch.bool), torch.arange(3)[None]
    sequence = ribbon_sequence(form(labels, mask, positions, torch.tensor([[3, 4], [5, 6]])), mask, positions)
    #          x a a' y1 b b' y2
    picture = [
        "1......",
        "11.....",
        "1.1....",
        "1..1...",
        "1..11..",
        "1..1.1.",
        "1..1..1",
    ]
    drawn = ["".join("1" if seen else "." for seen in row) for row in sequence.mask[0, 0].tolist()]
    assert drawn == picture
    assert sequence.main.tolist() == [[0, 3, 6]]
    assert sequence.candidate.tolist() == [1, 2, 4, 5]
    assert sequence.position_ids.tolist() == [[0, 1, 1, 1, 2, 2, 2]]
    assert sequence.mask.dtype == torch.bool


@pytest.mark.parametrize("side", ["right", "left"])
def test_padded_batch_against_the_definition(side, make_batch):
    batch = make_batch(side)
    torch.manual_seed(0)
    steps = len(supervised_tokens(batch.labels, batch.attention_mask))
    layout = form(batch.labels, batch.attention_mask, batch.position_ids, torch.randint(3, 31, (steps, 3)))
    sequence = ribbon_sequence(layout, batch.attention_mask, batch.position_ids)
    total = sequence.position_ids.shape[1]
    for sample in range(len(batch.ids)):
        expected = torch.eye(total, dtype=torch.bool)
        places = sequence.main[sample].tolist()
        real = batch.attention_mask[sample].tolist()
        for column, place in enumerate(places):
            for earlier in range(column + 1):
                expected[place, places[earlier]] |= real[earlier]
        mine = (layout.sample == sample).nonzero().flatten().tolist()
        for row in mine:
            for earlier in range(int(layout.limit[row])):
                expected[sequence.candidate[row], places[earlier]] = real[earlier]
        assert torch.equal(sequence.mask[sample, 0], expected)
        taken = places + sequence.candidate[mine].tolist()
        assert len(set(taken)) == len(taken) and max(taken) < total


def test_attention_that_takes_no_boolean_mask_is_refused(tiny_model, make_batch):
    model, batch = tiny_model(attention="eager"), make_batch()
    steps = len(supervised_tokens(batch.labels, batch.attention_mask))
    layout = form(batch.labels, batch.attention_mask, batch.position_ids, torch.full((steps, 1), 3))
    with pytest.raises(InputError, match="found 'eager'"):
        single_pass(
            model.model,
            model.get_input_embeddings()(batch.ids),
            batch.attention_mask,
            batch.position_ids,
            layout,
        )
