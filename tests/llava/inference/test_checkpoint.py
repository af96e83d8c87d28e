"""One loader and one template finder for everything that uses a finished checkpoint."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig

from llava.errors import InputError
from llava.inference.checkpoint import ChatModel, load, own_template
from llava.model import language_model_class
from llava.model.builder import load_pretrained_model


@pytest.fixture(scope="module")
def checkpoint(world, qwen_tokenizer, tmp_path_factory):
    """A student in bfloat16 that was tuned with the ``v1`` template."""
    folder = tmp_path_factory.mktemp("checkpoint") / "student"
    model = language_model_class("qwen2").from_pretrained(world.student_lm, dtype=torch.bfloat16)
    model.initialize_vision_modules(str(world.tower), mm_projector_type="mlp2x_gelu", mm_vision_select_layer=-1)
    model.config.mm_template = "v1"
    model.save_pretrained(folder)
    qwen_tokenizer.save_pretrained(folder)
    return folder


def test_load(checkpoint):
    loaded = load(str(checkpoint), device="cpu")
    assert (loaded.model_id, loaded.path, loaded.template_name) == ("student", str(checkpoint), "v1")
    assert loaded.model.dtype == torch.float32 and not loaded.model.training
    assert loaded.image_processor is loaded.model.get_vision_tower().image_processor
    assert loaded.context_length == load_pretrained_model(checkpoint)[3]
    dtypes = [load(str(checkpoint), device="cpu", dtype=dtype).model.dtype for dtype in (None, "float64", torch.half)]
    assert dtypes == [torch.bfloat16, torch.float64, torch.float16]


def test_a_chat_answers_in_the_checkpoints_own_template_or_the_chosen_one(checkpoint):
    chat = ChatModel.load(str(checkpoint), device="cpu")
    assert (chat.template.name, chat.path, chat.name, chat.layers) == ("v1", str(checkpoint), "student", 2)
    assert ChatModel.of(chat.loaded, "qwen").template.name == "qwen"
    with pytest.raises(InputError, match="'plain' is for captions"):
        ChatModel.of(chat.loaded, "plain")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"model_type": "llava_qwen2", "mm_template": "v1"}, "v1"),
        ({"model_type": "llava_qwen2"}, "qwen"),
        ({"model_type": "llava_llama"}, "v1"),
        ({"model_type": "llava_llama", "mm_template": "qwen"}, "qwen"),
    ],
)
def test_the_template_is_the_same_from_a_folder_and_from_a_loaded_configuration(tmp_path, settings, expected):
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert own_template(str(tmp_path)) == own_template(AutoConfig.from_pretrained(tmp_path)) == expected


def test_a_folder_without_configuration(tmp_path):
    with pytest.raises(InputError, match="no readable config.json"):
        own_template(str(tmp_path))


def test_a_model_of_another_kind_says_what_is_expected(world):
    with pytest.raises(InputError, match="expected a LLaVA checkpoint"):
        load(str(world.student_lm), device="cpu")


def test_importing_the_loader_is_light():
    code = "import sys, llava.inference.checkpoint, llava.inference.question; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
