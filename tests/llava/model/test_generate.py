"""Greedy answers do not depend on the batch, nor on the cache."""

import pytest
import torch

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import InputError

IMG = IMAGE_TOKEN_INDEX
PROMPTS = [[5, IMG, 6, 7, 8], [9, 10, 11], [IMG, 12, IMG, 13, 14, 15, 16], [17, IMG]]
PICTURES = [1, 0, 2, 1]
NEW = 8
GREEDY = {"do_sample": False, "max_new_tokens": NEW, "pad_token_id": 0}


def left_padded(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def naive_answer(model, prompt: list[int], images: torch.Tensor | None) -> list[int]:
    """One whole forward pass a token, no cache, no padding."""
    answer: list[int] = []
    for _ in range(NEW):
        logits = model(torch.tensor([prompt + answer]), images=images, use_cache=False).logits
        answer.append(int(logits[0, -1].argmax()))
    return answer


@pytest.fixture
def split(pictures):
    """Each prompt's own pictures."""
    images = pictures(sum(PICTURES), dtype=torch.float64)
    parts = torch.split(images, PICTURES)
    return images, [part if len(part) else None for part in parts]


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_batch_of_four_equals_one_by_one_and_no_cache(make_model, split, family):
    model = make_model(family, dtype=torch.float64)
    images, own = split
    ids, mask = left_padded(PROMPTS)
    together = model.generate(ids, images=images, attention_mask=mask, **GREEDY)
    assert together.shape == (4, NEW)
    with torch.no_grad():
        for i, prompt in enumerate(PROMPTS):
            alone = model.generate(torch.tensor([prompt]), images=own[i], **GREEDY)
            want = naive_answer(model, prompt, own[i])
            assert alone[0].tolist() == want
            assert together[i].tolist() == want
    assert len({tuple(row) for row in together.tolist()}) == 4  # the prompts really differ
    assert any(len(set(row)) > 2 for row in together.tolist())


def test_scores_do_not_depend_on_the_batch(make_model, split):
    model = make_model(dtype=torch.float64)
    images, own = split
    ids, mask = left_padded(PROMPTS)
    options = {**GREEDY, "return_dict_in_generate": True, "output_logits": True}
    together = torch.stack(model.generate(ids, images=images, attention_mask=mask, **options).logits, dim=1)
    for i, prompt in enumerate(PROMPTS):
        alone = model.generate(torch.tensor([prompt]), images=own[i], **options)
        torch.testing.assert_close(together[i], torch.stack(alone.logits, dim=1)[0], atol=1e-9, rtol=1e-7)


def test_right_padded_prompts_and_both_argument_names(make_model, split):
    model = make_model()
    images, _ = split
    ids, mask = left_padded(PROMPTS)
    want = model.generate(inputs=ids, images=images, attention_mask=mask, **GREEDY)
    width = ids.shape[1]
    right = torch.tensor([row + [0] * (width - len(row)) for row in PROMPTS])
    right_mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in PROMPTS]).bool()
    got = model.generate(input_ids=right, images=images, image_sizes=None, attention_mask=right_mask, **GREEDY)
    assert torch.equal(got, want)


def test_end_of_sequence_stops_each_row(make_model, split):
    model = make_model(dtype=torch.float64)
    images, _ = split
    ids, mask = left_padded(PROMPTS)
    free = model.generate(ids, images=images, attention_mask=mask, **GREEDY)
    end = int(free[0, 2])
    stopped = model.generate(ids, images=images, attention_mask=mask, eos_token_id=end, **GREEDY)
    for before, after in zip(free.tolist(), stopped.tolist(), strict=True):
        cut = before.index(end) + 1 if end in before else len(before)
        want = before[:cut] + [0] * (stopped.shape[1] - cut)
        assert after == want[: len(after)]


def test_beams_and_sampling_run(make_model, split):
    model = make_model()
    images, _ = split
    ids, mask = left_padded(PROMPTS)
    options = {"attention_mask": mask, "images": images, "max_new_tokens": 4, "pad_token_id": 0}
    assert model.generate(ids, do_sample=False, num_beams=3, **options).shape == (4, 4)
    torch.manual_seed(0)
    assert model.generate(ids, do_sample=True, temperature=0.7, top_p=0.9, **options).shape == (4, 4)


def test_inputs_embeds(make_model, split):
    model = make_model()
    images, _ = split
    ids, mask = left_padded(PROMPTS)
    batch = model.splice_inputs(ids, mask, images=images, padding_side="left")
    got = model.generate(inputs_embeds=batch.inputs_embeds, attention_mask=batch.attention_mask, **GREEDY)
    assert torch.equal(got, model.generate(ids, images=images, attention_mask=mask, **GREEDY))


def test_training_mode_and_wrong_calls(make_model, pictures):
    model = make_model()
    with pytest.raises(InputError, match="once"):
        model.generate(images=pictures(1))
    with pytest.raises(InputError, match="once"):
        model.generate(torch.tensor([[5]]), input_ids=torch.tensor([[5]]))
    with pytest.raises(InputError, match="1 <image> markers .* 0 images"):
        model.generate(torch.tensor([[5, IMG]]))
