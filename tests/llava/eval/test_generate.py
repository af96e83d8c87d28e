"""The generator against one question at a time by hand; batches, text-only questions, pictures, stopping."""

import pytest
import torch
from PIL import Image

from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import get_template
from llava.data.tokenize import tokenize_conversation
from llava.errors import InputError
from llava.eval.records import with_keys
from llava.inference.checkpoint import LoadedModel
from llava.inference.end_of_turn import EndOfTurn
from llava.inference.generate import generate_answers, prompt_text
from llava.inference.question import Picture, Question
from llava.mm_utils import process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. "
)
NEW = 10


@pytest.fixture(scope="module")
def loaded(checkpoint) -> LoadedModel:
    return LoadedModel(*load_pretrained_model(checkpoint, torch_dtype=torch.float64), model_id="tiny")


@pytest.fixture
def questions(world) -> list[Question]:
    """Prompts of many lengths, a picture asked about several times, and text-only questions between them."""
    asked = []
    for index in range(13):
        colour = ("red", "green", "blue", "red")[index % 4]
        picture = None if index % 5 == 3 else Picture.file(world.images / f"{colour}.png")
        asked.append(Question(f"q{index % 11}", "Is there a goat? " * (index % 4) + f"What is {index}?", picture))
    return with_keys(asked)


def run(loaded, questions, batch_size, template="qwen", new=NEW) -> dict[str, tuple[str, str]]:
    answers: dict[str, tuple[str, str]] = {}

    def keep(question, text, finish):
        assert question.key not in answers
        answers[question.key] = (text, finish)

    generate_answers(
        loaded, questions, get_template(template), max_new_tokens=new, batch_size=batch_size, on_answer=keep
    )
    return answers


def by_hand(loaded, question) -> str:
    """Prompt, ids and greedy decoding written out, without padding, cache or the generator's code."""
    tokenizer, model = loaded.tokenizer, loaded.model
    marker = "" if question.picture is None else "<image>\n"
    before, _, after = f"{SYSTEM}USER: {marker}{question.text} ASSISTANT:".partition("<image>")
    ids = tokenizer(before).input_ids
    images = None
    if question.picture is not None:
        ids = [*ids, IMAGE_TOKEN_INDEX, *tokenizer(after).input_ids]
        picture = Image.open(question.picture.path).convert("RGB")
        images = process_images([picture], loaded.image_processor, model.config).double()
    new: list[int] = []
    with torch.no_grad():
        while len(new) < NEW:
            logits = model(torch.tensor([ids + new]), images=images, use_cache=False).logits
            new.append(int(logits[0, -1].argmax()))
            if new[-1] == tokenizer.eos_token_id:
                break
    return tokenizer.decode(new, skip_special_tokens=True).strip()


def test_answers_equal_those_made_by_hand(loaded, questions):
    answers = run(loaded, questions, batch_size=4)
    assert answers.keys() == {question.key for question in questions}
    for question in questions:
        assert answers[question.key][0] == by_hand(loaded, question)
    assert len({text for text, _ in answers.values()}) > 8  # they do depend on question and picture


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_batch_size_does_not_change_answers(checkpoint, questions, dtype):
    model = LoadedModel(*load_pretrained_model(checkpoint, torch_dtype=dtype), model_id="tiny")
    one = run(model, questions, batch_size=1)
    assert run(model, questions, batch_size=8) == one
    assert run(model, questions, batch_size=100) == one
    assert len(set(one.values())) > 8


def test_the_checkpoints_own_generation_settings_do_not_matter(checkpoint, questions):
    model = LoadedModel(*load_pretrained_model(checkpoint, torch_dtype=torch.float64), model_id="tiny")
    before = run(model, questions, 4)
    config = model.model.generation_config
    config.do_sample, config.temperature, config.top_p, config.top_k = True, 3.0, 0.9, 50
    config.repetition_penalty, config.no_repeat_ngram_size, config.num_beams = 5.0, 1, 3
    assert run(model, questions, 4) == before


def test_pictures_change_answers(loaded, world):
    asked = [
        Question(colour, "What is it?", Picture.file(world.images / f"{colour}.png"), key=colour)
        for colour in ("red", "green", "blue", "white")
    ]
    assert len({text for text, _ in run(loaded, asked, 4).values()}) > 1


def test_each_picture_of_a_batch_is_seen_once(loaded, questions, monkeypatch):
    seen: list[int] = []
    original = type(loaded.model).vision_features

    def counting(self, images):
        seen.append(0 if images is None else len(images))
        return original(self, images)

    monkeypatch.setattr(type(loaded.model), "vision_features", counting)
    run(loaded, questions, batch_size=100)
    assert seen == [3]


def test_prompt_text(loaded):
    question = Question("q", "What <image>is it?", Picture.file("x.png"))
    assert prompt_text(question, get_template("qwen"), loaded.model.config) == (
        f"{SYSTEM}USER: <image>\nWhat is it? ASSISTANT:"
    )
    text_only = Question("q", "Why? ")
    assert prompt_text(text_only, get_template("v1"), None) == f"{SYSTEM}USER: Why?  ASSISTANT:"

    class Marked:
        mm_use_im_start_end = True

    assert "USER: <im_start><image><im_end>\nWhat is it?" in prompt_text(question, get_template("qwen"), Marked)


@pytest.mark.parametrize("template", ["qwen", "qwen_bare", "v1", "qwen_2"])
def test_a_later_turn_is_asked_as_it_was_trained(loaded, template):
    """The prompt, and its tokens, are those of the same conversation in training, up to the answer."""
    history = (("Is there a goat?\nBe short.", "No"), ("And <image>a cat?", "Yes, there is a cat."))
    question = Question("q", "Where is it?", Picture.file("x.png"), history=history)
    said = [f"<image>\n{history[0][0]}", "No", "And a cat?", "Yes, there is a cat.", "Where is it?", "top left"]
    turns = [("gpt" if index % 2 else "human", text) for index, text in enumerate(said)]
    chosen = get_template(template)
    prompt = prompt_text(question, chosen, loaded.model.config)
    assert prompt == chosen.prompt(turns[:-1])
    trained = tokenize_conversation([{"from": who, "value": text} for who, text in turns], loaded.tokenizer, chosen, 1)
    asked = tokenizer_image_token(prompt, loaded.tokenizer)
    assert trained.input_ids[: len(asked)].tolist() == asked
    text_only = Question("q", "Why?", history=(("Is it?", "Yes"),))
    said_without = chosen.prompt([("human", "Is it?"), ("gpt", "Yes"), ("human", "Why?")])
    assert prompt_text(text_only, chosen, None) == said_without


def test_the_history_changes_answers(loaded, world):
    picture = Picture.file(world.images / "red.png")
    histories = [(), (("Is there a goat?", "No"),), (("Is there a goat?", "Yes"),)]
    asked = [Question("q", "What is it?", picture, history=turns) for turns in histories]
    answers = run(loaded, with_keys(asked), 3)
    assert answers == run(loaded, with_keys(asked), 1)
    assert len({text for text, _ in answers.values()}) == 3


@pytest.mark.parametrize("template", ["qwen", "v1", "qwen_2"])
def test_end_of_turn_is_cut_and_noticed(loaded, template):
    tokenizer = loaded.tokenizer
    stop = EndOfTurn.of(get_template(template), tokenizer, loaded.model)
    mark = get_template(template).end_of_turn
    ids = tokenizer(f" A red apple.{mark}").input_ids
    assert stop.read([*ids, stop.pad_id, stop.pad_id], 99) == ("A red apple.", "stop")
    assert stop.read(ids, len(ids)) == ("A red apple.", "stop")
    plain = tokenizer(" A red apple.").input_ids
    assert stop.read(plain, len(plain)) == ("A red apple.", "length")
    assert stop.read([*plain, tokenizer.eos_token_id], 99) == ("A red apple.", "stop")
    # a row that is over goes on as padding, or as whatever follows, while others in its batch are not
    assert stop.read([*plain, tokenizer.eos_token_id, *plain], 99) == ("A red apple.", "stop")
    assert stop.read([*ids, *plain], 99) == ("A red apple.", "stop")


def test_end_of_turn_of_several_tokens_stops_generation(loaded, questions):
    """With ``v1``, whose end of turn this tokenizer splits, rows stop as soon as their text holds it."""
    template = get_template("v1")
    stop = EndOfTurn.of(template, loaded.tokenizer, loaded.model)
    assert not stop.is_token
    (rule,) = stop.criteria()
    done, going = (loaded.tokenizer(text).input_ids for text in ("a goat </s>", "a goat and a dog"))
    width = max(len(done), len(going))
    rows = torch.tensor([[0] * (width - len(row)) + row for row in (done, going)])
    assert rule(rows, None).tolist() == [True, False]
    assert run(loaded, questions, 8, "v1") == run(loaded, questions, 1, "v1")


def test_token_limit_is_reported(loaded, questions):
    short = run(loaded, questions, 8, new=2)
    long = run(loaded, questions, 8, new=NEW)
    assert "length" in {finish for _, finish in short.values()}
    for key, (text, finish) in short.items():
        if finish == "stop":
            assert long[key] == (text, finish)


def test_unreadable_picture_is_named(loaded, questions, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    asked = [*questions, Question("x", "?", Picture.file(broken), key="x")]
    with pytest.raises(InputError, match="broken.png"):
        run(loaded, asked, 4)


def test_answers_before_an_error_are_kept(loaded, questions, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    asked = [*questions, Question("x", "?" * 300, Picture.file(broken), key="x")]
    kept = []
    with pytest.raises(InputError, match="broken.png"):
        generate_answers(
            loaded,
            asked,
            get_template("qwen"),
            max_new_tokens=2,
            batch_size=1,
            on_answer=lambda question, *_: kept.append(question.key),
        )
    assert sorted(kept) == sorted(question.key for question in questions)


def test_prompts_beyond_the_context_are_warned_of(loaded, questions, caplog):
    short = LoadedModel(loaded.tokenizer, loaded.model, loaded.image_processor, 30, "tiny")
    run(short, questions[:2], 2, new=1)
    assert "2 prompts are longer than the model's context of 30 tokens" in caplog.text


def test_batch_size_below_one(loaded, questions):
    with pytest.raises(InputError, match="--batch-size is 0"):
        run(loaded, questions, 0)
