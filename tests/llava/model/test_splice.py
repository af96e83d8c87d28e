"""The vectorised splice against one written with loops."""

import pytest
import torch
from torch import nn

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import InputError
from llava.model.splice import SplicedBatch, flatten_images, position_ids_from_mask, splice

IMG = IMAGE_TOKEN_INDEX
PER_PICTURE, DIM = 3, 5


def slow_splice(embed, input_ids, visual, attention_mask, labels, instruction_mask, side) -> SplicedBatch:
    """Row by row, token by token."""
    rows, picture = [], 0
    for ids, mask, label, instruction in zip(
        input_ids.tolist(), attention_mask.tolist(), labels.tolist(), instruction_mask.tolist(), strict=True
    ):
        row = []  # (vector, label, instruction, visual)
        for i in range(len(ids)):
            if not mask[i]:
                continue
            if ids[i] == IMG:
                row += [(vector, IGNORE_INDEX, False, True) for vector in visual[picture]]
                picture += 1
            else:
                row.append((embed(torch.tensor(ids[i])), label[i], bool(instruction[i]), False))
        rows.append(row)
    length = max(len(row) for row in rows)
    padding = (torch.zeros(DIM), IGNORE_INDEX, False, False)
    mask, positions, padded = [], [], []
    for row in rows:
        gap = length - len(row)
        before, after = (gap, 0) if side == "left" else (0, gap)
        padded.append([padding] * before + row + [padding] * after)
        mask.append([False] * before + [True] * len(row) + [False] * after)
        positions.append([0] * before + list(range(len(row))) + [max(len(row) - 1, 0)] * after)
    return SplicedBatch(
        inputs_embeds=torch.stack([torch.stack([token[0] for token in row]) for row in padded]),
        attention_mask=torch.tensor(mask),
        position_ids=torch.tensor(positions),
        labels=torch.tensor([[token[1] for token in row] for row in padded]),
        instruction_mask=torch.tensor([[token[2] for token in row] for row in padded]),
        visual_mask=torch.tensor([[token[3] for token in row] for row in padded]),
        right_padded=side == "right",
    )


def random_batch(seed: int, input_side: str):
    """Rows with no, one or several pictures, at the start, the end or side by side, padded on either side."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int) -> int:
        return int(torch.randint(high, (1,), generator=generator))

    rows = []
    for _ in range(2 + draw(3)):
        row = [1 + draw(9) for _ in range(1 + draw(6))]
        for _ in range(draw(4)):
            row.insert(draw(len(row) + 1), IMG)
        rows.append(row)
    width = max(map(len, rows)) + draw(2)
    ids, mask = (
        torch.zeros(len(rows), width, dtype=torch.long),
        torch.zeros(len(rows), width, dtype=torch.bool),
    )
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if input_side == "right" else slice(width - len(row), width)
        ids[i, place], mask[i, place] = torch.tensor(row), True
    labels = torch.where(torch.rand(ids.shape, generator=generator) < 0.5, ids, IGNORE_INDEX)
    instruction = torch.rand(ids.shape, generator=generator) < 0.5
    visual = torch.randn(int((ids == IMG).sum()), PER_PICTURE, DIM, generator=generator)
    return ids, mask, labels, instruction, visual


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("input_side", ["right", "left"])
def test_equals_the_slow_reference(side, input_side):
    torch.manual_seed(0)
    embed = nn.Embedding(10, DIM)
    kinds = set()
    for seed in range(25):
        ids, mask, labels, instruction, visual = random_batch(seed, input_side)
        kinds |= {int(n) for n in (ids == IMG).sum(1)}
        got = splice(embed, ids, visual, mask, labels, instruction, padding_side=side)
        want = slow_splice(embed, ids, visual, mask, labels, instruction, side)
        for name in want.__dataclass_fields__:
            ours, wanted = getattr(got, name), getattr(want, name)
            assert torch.equal(ours, wanted) if isinstance(ours, torch.Tensor) else ours == wanted, (seed, name)
    assert {0, 1, 2, 3} <= kinds  # text-only rows and several pictures a row really occurred


def test_gradients_equal_the_slow_reference():
    torch.manual_seed(0)
    embed = nn.Embedding(10, DIM).double()
    ids, mask, labels, instruction, visual = random_batch(7, "right")
    results = []
    for function in (splice, slow_splice):
        vision = visual.double().requires_grad_()
        embed.zero_grad()
        out = function(embed, ids, vision, mask, labels, instruction, "left").inputs_embeds.double()
        (out * torch.arange(out.numel()).view_as(out)).sum().backward()
        results.append((vision.grad, embed.weight.grad.clone()))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_labels_and_masks_may_be_absent():
    batch = splice(nn.Embedding(10, DIM), torch.tensor([[1, IMG, 2]]), torch.randn(1, PER_PICTURE, DIM))
    assert batch.labels.eq(IGNORE_INDEX).all()
    assert not batch.instruction_mask.any()
    assert batch.attention_mask.all()
    assert batch.visual_mask.tolist() == [[False, True, True, True, False]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4]]


def test_a_label_on_the_marker_is_dropped():
    ids = torch.tensor([[1, IMG, 2]])
    batch = splice(nn.Embedding(10, DIM), ids, torch.randn(1, PER_PICTURE, DIM), labels=ids.clone())
    assert batch.labels.tolist() == [[1, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, 2]]


def test_a_marker_in_the_padding_needs_no_picture():
    ids, mask = torch.tensor([[1, 2, IMG]]), torch.tensor([[1, 1, 0]])
    assert splice(nn.Embedding(10, DIM), ids, None, mask).attention_mask.tolist() == [[True, True]]


@pytest.mark.parametrize("given", [0, 1, 3])
def test_wrong_number_of_pictures(given):
    ids = torch.tensor([[1, IMG, 2], [IMG, 3, 4]])
    visual = torch.randn(given, PER_PICTURE, DIM) if given else None
    with pytest.raises(InputError, match=f"2 <image> markers .* {given} images"):
        splice(nn.Embedding(10, DIM), ids, visual)


def test_shapes_and_sides_are_checked():
    ids = torch.tensor([[1, 2, 3]])
    with pytest.raises(InputError, match=r"labels has shape \[1, 2\], but input_ids has \[1, 3\]"):
        splice(nn.Embedding(10, DIM), ids, None, labels=ids[:, :2])
    with pytest.raises(InputError, match="'middle'"):
        splice(nn.Embedding(10, DIM), ids, None, padding_side="middle")


def test_flatten_images():
    one = torch.randn(3, 4, 4)
    five = torch.randn(2, 2, 3, 4, 4)
    assert flatten_images(None) is None
    assert flatten_images([]) is None
    assert flatten_images(torch.zeros(0, 3, 4, 4)) is None
    assert flatten_images(one).shape == (1, 3, 4, 4)
    assert torch.equal(flatten_images(five), five.reshape(4, 3, 4, 4))
    mixed = flatten_images([one, five[0], five[1, :1]])
    assert torch.equal(mixed, torch.cat([one[None], five[0], five[1, :1]]))
    with pytest.raises(InputError, match="different sizes"):
        flatten_images([one, torch.randn(3, 8, 8)])
    with pytest.raises(InputError, match=r"\[4, 4\]"):
        flatten_images(torch.randn(4, 4))


def test_position_ids_from_mask():
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])
    assert position_ids_from_mask(mask).tolist() == [[0, 0, 0, 1], [0, 1, 2, 2]]
