from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from llava.errors import InputError
from llava.mm_utils import get_model_name_from_path, process_images, tokenizer_image_token


@pytest.fixture(scope="module")
def processor():
    return SiglipImageProcessorPil(size={"height": 32, "width": 32})


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("liuhaotian/llava-v1.5-7b", "llava-v1.5-7b"),
        ("/runs/student/", "student"),
        ("/runs/student/checkpoint-500", "student_checkpoint-500"),
        ("checkpoint-500", "checkpoint-500"),
    ],
)
def test_model_name(path, name):
    assert get_model_name_from_path(path) == name


def test_image_tokens(qwen_tokenizer):
    before, after = qwen_tokenizer("USER: ").input_ids, qwen_tokenizer("\nWhat?").input_ids
    prompt = "USER: <image>\nWhat?"
    assert tokenizer_image_token(prompt, qwen_tokenizer) == before + [-200] + after
    assert tokenizer_image_token("<image><image>", qwen_tokenizer, image_token_index=-7) == [-7, -7]
    assert tokenizer_image_token("", qwen_tokenizer) == []
    tensor = tokenizer_image_token(prompt, qwen_tokenizer, return_tensors="pt")
    assert tensor.dtype == torch.long
    assert tensor.tolist() == before + [-200] + after
    with pytest.raises(InputError, match="'np'"):
        tokenizer_image_token(prompt, qwen_tokenizer, return_tensors="np")


@pytest.mark.parametrize("config", [SimpleNamespace(image_aspect_ratio="pad"), {"image_aspect_ratio": "pad"}])
def test_padding_uses_the_mean_colour(processor, config):
    pixels = process_images([Image.new("RGB", (64, 32), "red"), Image.new("L", (10, 10))], processor, config)
    assert pixels.shape == (2, 3, 32, 32)
    assert pixels.dtype == torch.float32
    assert pixels[0, :, :6].abs().max() < 0.02, "the padding is grey, which is 0 after normalisation"
    assert pixels[0, 0, 12:20].min() > 0.9
    assert pixels[0, 1, 12:20].max() < -0.9


@pytest.mark.parametrize("config", [SimpleNamespace(), SimpleNamespace(image_aspect_ratio="square"), {}])
def test_square_stretches(processor, config):
    pixels = process_images([Image.new("RGB", (64, 32), "red")], processor, config)
    assert pixels.shape == (1, 3, 32, 32)
    assert pixels[0, 0].min() > 0.9


def test_unknown_aspect_ratio_and_no_image(processor):
    with pytest.raises(InputError, match="'anyres'.*'pad' or 'square'"):
        process_images([Image.new("RGB", (4, 4))], processor, {"image_aspect_ratio": "anyres"})
    with pytest.raises(InputError, match="no image"):
        process_images([], processor, {})
