"""Conversations: the same answers as evaluation, pieces that join, prompts of several turns, stopping, limits."""

import threading
from dataclasses import replace

import pytest
import torch

from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import TEMPLATES, get_template
from llava.errors import InputError
from llava.eval.records import with_keys
from llava.inference.checkpoint import ChatModel, chat_template
from llava.inference.end_of_turn import EndOfTurn
from llava.inference.generate import generate_answers
from llava.inference.question import Picture, Question
from llava.inference.sampling import Sampling
from llava.mm_utils import tokenizer_image_token
from llava.serve.chat import Chat

ASKED = [
    "What is at the top left?",
    "Is there a goat?",
    "a\nb",
    "Which animals are in the picture? " * 3 + "And where?",
]
SHORT = Sampling(max_new_tokens=12)


def said(chat: Chat, question: str, sampling: Sampling = SHORT) -> list[str]:
    return list(chat.ask(question, sampling))


def with_template(model: ChatModel, name: str) -> ChatModel:
    return ChatModel.of(model.loaded, name)


@pytest.mark.parametrize("template", ["qwen", "v1", "qwen_2"])
@pytest.mark.parametrize("with_picture", [True, False])
def test_answers_equal_evaluation_and_pieces_join(models, wide, save, template, with_picture):
    model = with_template(models["teacher"], template)
    picture = Picture.file(save(wide, "wide.png")) if with_picture else None
    questions = with_keys([Question(str(index), text, picture) for index, text in enumerate(ASKED)])
    expected = {}
    generate_answers(
        model.loaded,
        questions,
        get_template(template),
        max_new_tokens=12,
        batch_size=2,
        on_answer=lambda question, text, finish: expected.update({question.text: (text, finish)}),
    )
    streamed = 0
    for text in ASKED:
        chat = Chat(model, wide if with_picture else None)
        pieces = said(chat, text)
        assert ("".join(pieces), chat.finish) == expected[text]
        assert chat.exchanges == [(text.strip(), "".join(pieces))]
        streamed += len(pieces) > 2
    assert streamed  # they did come piece by piece


def test_two_pictures_are_told_apart(models, wide):
    answers = {"".join(said(Chat(models["teacher"], picture), ASKED[0])) for picture in (wide, wide.rotate(180), None)}
    assert len(answers) > 1


@pytest.mark.parametrize("name", ["qwen", "v1", "qwen_bare", "qwen_2"])
def test_prompt_of_several_turns_is_the_templates(models, wide, name):
    chat = Chat(with_template(models["teacher"], name), wide)
    chat.exchanges = [("What is this?", "A goat."), ("Where?", "On the left.")]
    segments = chat.segments("Is it red?")
    turns = [("human", "<image>\nWhat is this?"), ("gpt", "A goat."), ("human", "Where?"), ("gpt", "On the left.")]
    assert "".join(segment.text for segment in segments) == TEMPLATES[name].prompt([*turns, ("human", "Is it red?")])
    assert chat.ids(segments).count(IMAGE_TOKEN_INDEX) == 1
    assert "".join(segment.text for segment in segments if segment.is_instruction).strip() == "Is it red?"


def test_second_answer_sees_the_first(models, wide):
    chat = Chat(models["teacher"], wide)
    said(chat, ASKED[0])
    second = "".join(said(chat, ASKED[1]))
    fresh = Chat(models["teacher"], wide)
    fresh.exchanges = [chat.exchanges[0]]
    assert second == "".join(said(fresh, ASKED[1]))
    assert [question for question, _ in chat.exchanges] == ASKED[:2]


def test_image_start_and_end_tokens(models, wide, monkeypatch):
    model = models["student"]
    monkeypatch.setattr(model.loaded.model.config, "mm_use_im_start_end", True, raising=False)
    text = "".join(segment.text for segment in Chat(model, wide).segments("Where?"))
    assert "USER: <im_start><image><im_end>\nWhere? ASSISTANT:" in text


class Spelling:
    """A tokenizer of single bytes, where every end of turn and many characters take several tokens."""

    eos_token_id = pad_token_id = 0

    def encode(self, text, add_special_tokens=False):
        return list(text.encode())

    def decode(self, tokens, skip_special_tokens=True):
        return bytes(token for token in tokens if token).decode(errors="replace")


@pytest.mark.parametrize(
    "text",
    ["  a goat  ", "a </ b </s>never shown", "</sb", "é\u2026 \U0001f410 done", "", "one\n\ntwo \n", "<", "\n</s>"],
)
def test_settled_text_never_takes_anything_back(text):
    from llava.serve.streaming import _SettledText

    end = EndOfTurn(Spelling(), "</s>", [0], 0, is_token=False)
    streamer = _SettledText(end, 1000)
    streamer.put(torch.zeros(1, 0, dtype=torch.long))
    for token in text.encode():
        streamer.put(torch.tensor([token]))
    streamer.end()
    pieces = list(streamer)
    assert "".join(pieces) == end.read(list(text.encode()), 1000)[0]
    assert "\ufffd" not in "".join(pieces) and "</s>" not in "".join(pieces)


def test_a_stopped_answer_is_kept_as_far_as_it_was_shown(models, wide):
    chat = Chat(replace(models["teacher"], end=replace(models["teacher"].end, ids=[])), wide)
    shown = []
    for piece in chat.ask(ASKED[0], Sampling(max_new_tokens=400)):
        shown.append(piece)
        chat.stop()
    assert chat.finish == "interrupted"
    assert chat.exchanges == [(ASKED[0], "".join(shown))]
    assert len(models["teacher"].loaded.tokenizer("".join(shown)).input_ids) < 300


def test_leaving_the_iteration_ends_generation(models, wide):
    before = threading.active_count()
    pieces = Chat(models["teacher"], wide).ask(ASKED[0], Sampling(max_new_tokens=400))
    next(pieces)
    pieces.close()
    assert threading.active_count() == before


def test_an_error_while_generating_reaches_the_caller(models, wide, monkeypatch):
    def fail(**_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(models["student"].loaded.model, "generate", fail)
    chat = Chat(models["student"], wide)
    with pytest.raises(RuntimeError, match="out of memory"):
        said(chat, "What?")


def test_sampling_changes_answers_and_is_checked(models, wide):
    answers = {"".join(said(Chat(models["teacher"], wide), ASKED[0], Sampling(1.5, 0.95, 12))) for _ in range(4)}
    assert len(answers) > 1
    for wrong in ((-1, 1, 1), (float("nan"), 1, 1), (0, 0, 1), (0, 1.1, 1), (0, 1, 0)):
        with pytest.raises(InputError):
            Sampling(*wrong)


def test_wrong_questions(models, wide):
    with pytest.raises(InputError, match="no picture is loaded"):
        said(Chat(models["teacher"]), "<image>\nWhat?")
    with pytest.raises(InputError, match="empty"):
        said(Chat(models["teacher"], wide), " <image> ")
    marked, plain = Chat(models["teacher"], wide), Chat(models["teacher"], wide)
    assert said(marked, "<image>\nWhat?") == said(plain, "What?")  # LLaVA's own marker is not a second picture


def test_context_limit(models, wide):
    loaded = models["teacher"].loaded
    chat = Chat(models["teacher"], wide)
    used = len(chat.ids(chat.segments(ASKED[0]))) + chat.features().shape[1] - 1
    ids = tokenizer_image_token("".join(s.text for s in chat.segments(ASKED[0])), loaded.tokenizer)
    spliced = loaded.model.splice_inputs(torch.tensor([ids]), vision_features=chat.features()).inputs_embeds.shape[1]
    assert used == spliced
    for room in (0, 3):
        model = replace(models["teacher"], loaded=replace(loaded, context_length=used + room))
        chat = Chat(model, wide)
        if room == 0:
            with pytest.raises(InputError, match="start a new conversation"):
                said(chat, ASKED[0])
            assert chat.exchanges == []
        else:
            text = "".join(said(chat, ASKED[0]))
            assert text == "".join(said(Chat(models["teacher"], wide), ASKED[0], Sampling(max_new_tokens=3)))


def test_template_of_a_checkpoint(models):
    from types import SimpleNamespace

    assert chat_template(SimpleNamespace(mm_template="qwen_2", model_type="llava_qwen2")).name == "qwen_2"
    assert chat_template(SimpleNamespace(mm_template="qwen_2", model_type="llava_qwen2"), "v1").name == "v1"
    assert chat_template(SimpleNamespace(model_type="llava_llama")).name == "v1"
    assert chat_template(SimpleNamespace(model_type="llava_qwen3")).name == "qwen"
    with pytest.raises(InputError, match="captions"):
        chat_template(SimpleNamespace(mm_template="plain", model_type="llava_qwen2"))
