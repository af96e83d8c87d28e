"""This package's models offer what the rest of the project asks of a vision-language model, and no more is asked."""

import pytest
import torch
from torch import nn
from transformers import Qwen2ForCausalLM

from llava.conversation import get_template
from llava.data.annotations.table import open_annotations
from llava.errors import InputError
from llava.eval.held_out import measure
from llava.inference.checkpoint import ChatModel, LoadedModel, load
from llava.inference.generate import generate_answers
from llava.inference.question import Picture, Question
from llava.inference.sampling import Sampling
from llava.model.language import LANGUAGE_MODELS
from llava.model.protocol import VisionLanguageModel, vision_tower_of
from llava.serve.chat import Chat
from tests.protocol_only import ProtocolOnly

SMALL = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_every_language_model_offers_the_protocol(name):
    model_class = LANGUAGE_MODELS[name]
    model = model_class(model_class.config_class(**SMALL))
    assert isinstance(model, VisionLanguageModel)
    assert model.get_input_embeddings() is model.model.embed_tokens
    assert isinstance(model.lm_head, nn.Linear) and model.lm_head.weight.shape == (32, 16)
    with pytest.raises(InputError, match="has no vision tower"):
        vision_tower_of(model)


def test_a_plain_language_model_does_not(world):
    assert not isinstance(Qwen2ForCausalLM.from_pretrained(world.student_lm), VisionLanguageModel)


@pytest.fixture(scope="module")
def loaded(world, qwen_tokenizer, tmp_path_factory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("checkpoint") / "student"
    model = LANGUAGE_MODELS["llava_qwen2"].from_pretrained(world.student_lm, dtype=torch.float32)
    model.initialize_vision_modules(str(world.tower), mm_projector_type="mlp2x_gelu", mm_vision_select_layer=-1)
    model.config.mm_template = "qwen"
    model.save_pretrained(folder)
    qwen_tokenizer.save_pretrained(folder)
    return load(str(folder), device="cpu", dtype="float64")


def test_inference_evaluation_and_chat_ask_for_nothing_else(loaded, world):
    bare = LoadedModel(
        loaded.tokenizer, ProtocolOnly(loaded.model), loaded.image_processor, loaded.context_length, loaded.model_id
    )
    template = get_template("qwen")
    picture = Picture.file(world.images / "red.png")
    questions = [Question("1", "What is it?", picture, key="1"), Question("2", "Why?", key="2")]

    def answers(model: LoadedModel) -> dict[str, str]:
        said: dict[str, str] = {}
        generate_answers(
            model,
            questions,
            template,
            max_new_tokens=6,
            batch_size=2,
            on_answer=lambda question, text, _: said.update({question.key: text}),
        )
        return said

    def held_out(model: LoadedModel) -> float:
        found = measure(
            model.model,
            model.tokenizer,
            model.image_processor,
            template,
            open_annotations(str(world.data)),
            world.images,
        )
        return found.cross_entropy

    def chat(model: LoadedModel) -> str:
        return "".join(Chat(ChatModel.of(model), picture.load()).ask("What is it?", Sampling(max_new_tokens=6)))

    for ask in (answers, held_out, chat):
        assert ask(bare) == ask(loaded)
