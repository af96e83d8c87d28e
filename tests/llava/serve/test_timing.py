"""Speed of answers, against a stopwatch outside and a model slowed down by a known time."""

import time

import pytest

from llava.inference.checkpoint import ChatModel
from llava.inference.sampling import Sampling
from llava.serve.chat import Chat
from llava.serve.timing import Timing

PAUSE = 0.05


@pytest.fixture
def slow(talkative):
    """A model that pauses before every token, and once for the picture."""
    model = ChatModel.load(str(talkative), dtype="float64")
    llava = model.loaded.model
    for module in (llava.model.get_vision_tower(), llava.lm_head):
        module.register_forward_pre_hook(lambda *_: time.sleep(PAUSE))
    return model


def test_every_token_and_the_picture_are_timed(slow, wide):
    chat = Chat(slow, wide)
    assert chat.timing is None
    begun = time.perf_counter()
    pieces = chat.ask("What is this?", Sampling(max_new_tokens=8))
    seen = [time.perf_counter() - begun for _ in pieces]
    wall = time.perf_counter() - begun
    timing = chat.timing
    assert timing.tokens == 8
    assert 2 * PAUSE <= timing.first <= seen[0]
    assert timing.first + 7 * PAUSE <= timing.total <= wall
    assert timing.per_second == pytest.approx(8 / timing.total) and timing.per_second < 1 / PAUSE
    list(chat.ask("And this?", Sampling(max_new_tokens=1)))  # the picture's features are kept
    assert chat.timing.tokens == 1 and PAUSE <= chat.timing.first == chat.timing.total


def test_an_answer_that_is_stopped_is_timed_as_far_as_it_came(slow):
    chat = Chat(slow)
    for number, _ in enumerate(chat.ask("Hello?", Sampling(max_new_tokens=50))):
        if number == 1:
            chat.stop()
    assert chat.finish == "interrupted" and 2 <= chat.timing.tokens < 50


def test_words():
    assert str(Timing(0.1234, 2.0, 41)) == "0.12 s to the first token, 41 tokens in 2.00 s, 20.5 tokens/s"
    assert str(Timing(12.34, 12.34, 1)) == "12.3 s to the first token, 1 token in 12.3 s, 0.08 tokens/s"
    assert str(Timing(0.01, 0.5, 128)).endswith("128 tokens in 0.50 s, 256 tokens/s")
