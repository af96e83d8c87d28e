"""Losses of given answers against one sample at a time by hand."""

import math

import pytest
import torch
from PIL import Image
from torch.nn.functional import log_softmax

from llava.constants import IGNORE_INDEX
from llava.conversation import ASSISTANT, HUMAN, get_template
from llava.data.tokenize import tokenize_segments
from llava.eval.likelihood import answer_losses
from llava.mm_utils import process_images
from llava.model.builder import load_pretrained_model

TURNS = [
    ("<image>\nWhat is in the picture?", "A goat.", 1),
    ("Is there a lion?", "No.", 0),
    ("<image>\n<image>\nAre both red?", "Yes, both of them are.", 2),
]


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return load_pretrained_model(checkpoint, torch_dtype=torch.float64)


def samples_of(tokenizer, turns):
    template = get_template("qwen")
    return [
        tokenize_segments(template.compose([(HUMAN, question), (ASSISTANT, answer)]), tokenizer)
        for question, answer, _ in turns
    ]


def pixels_of(loaded, count):
    _, model, processor, _ = loaded
    pictures = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")[:count]]
    return process_images(pictures, processor, model.config).double()


def by_hand(loaded, sample, pixels):
    """The logarithm of each target's probability, read off a forward pass over the ids."""
    _, model, _, _ = loaded
    with torch.no_grad():
        logits = model(sample.input_ids[None], images=pixels).logits[0]
    count = int((sample.labels != IGNORE_INDEX).sum())
    assert (sample.labels[-count:] != IGNORE_INDEX).all()  # the targets are the last tokens
    logs = log_softmax(logits[-count - 1 : -1], dim=-1)
    targets = sample.labels[-count:]
    chosen = logs[torch.arange(count), targets]
    return -chosen.mean().item(), bool((logs.argmax(dim=-1) == targets).all())


def test_losses_equal_those_made_by_hand(loaded):
    samples = samples_of(loaded[0], TURNS)
    pixels = pixels_of(loaded, 3)
    found = answer_losses(loaded[1], samples, pixels)
    wanted = [by_hand(loaded, samples[0], pixels[:1]), by_hand(loaded, samples[1], None)]
    wanted.append(by_hand(loaded, samples[2], pixels[1:]))
    for (loss, greedy), (right, right_greedy) in zip(found, wanted, strict=True):
        assert math.isclose(loss, right, rel_tol=1e-5)  # logits are taken to float32
        assert greedy is right_greedy


def test_text_alone(loaded):
    samples = samples_of(loaded[0], TURNS[1:2])
    (found,) = answer_losses(loaded[1], samples, None)
    assert math.isclose(found[0], by_hand(loaded, samples[0], None)[0], rel_tol=1e-5)


def test_a_greedy_answer_is_noticed(loaded):
    """What the model itself would say is greedy, and one token changed in it is not."""
    tokenizer, model, _, _ = loaded
    (sample,) = samples_of(tokenizer, TURNS[1:2])
    targets = (sample.labels != IGNORE_INDEX).nonzero()[:, 0].tolist()
    for place in targets:
        with torch.no_grad():
            best = model(sample.input_ids[None, :place]).logits[0, -1].argmax()
        sample.input_ids[place] = sample.labels[place] = best
    assert answer_losses(model, [sample], None)[0][1] is True
    last = targets[-1]
    sample.input_ids[last] = sample.labels[last] = (int(sample.labels[last]) + 1) % 400
    assert answer_losses(model, [sample], None)[0][1] is False
