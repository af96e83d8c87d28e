"""load_pretrained_model: every layout a folder can have, told by its contents."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import InputError
from llava.model.builder import context_length, load_pretrained_model
from llava.model.checkpoint import save_projector

IDS = torch.tensor([[5, IMAGE_TOKEN_INDEX, 6, 7]])


def logits(model, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS, images=images).logits


def edit_config(folder: Path, **changes) -> None:
    settings = json.loads((folder / "config.json").read_text()) | changes
    settings = {key: value for key, value in settings.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_full_checkpoint(full, pictures, family):
    model, folder = full(family)
    tokenizer, loaded, processor, context = load_pretrained_model(folder, None, "anything", multimodal=True)
    assert torch.equal(logits(loaded, pictures(1)), logits(model, pictures(1)))
    assert not loaded.training
    assert context == 256
    assert tokenizer.decode(tokenizer("A goat.").input_ids) == "A goat."
    assert loaded.generation_config.pad_token_id == tokenizer.pad_token_id
    pixels = processor(Image.new("RGB", (30, 50)), return_tensors="pt")["pixel_values"]
    answer = loaded.generate(IDS, images=pixels, image_sizes=[(30, 50)], max_new_tokens=3, do_sample=False)
    assert answer.shape == (1, 3)


def test_options_reach_the_model(full):
    _, folder = full()
    _, model, _, _ = load_pretrained_model(
        str(folder), None, "x", device_map="cpu", torch_dtype=torch.bfloat16, attn_implementation="eager"
    )
    assert model.dtype == model.get_vision_tower().dtype == torch.bfloat16
    assert model.config._attn_implementation == "eager"


def test_authors_config_keys(full, pictures):
    model, folder = full()
    weights = load_file(folder / "model.safetensors")
    weights = {k.replace("mm_projector.", "mm_projector.image_spatial_proj."): v for k, v in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit_config(
        folder,
        mm_image_tower=model.config.mm_vision_tower,
        image_projector_type="mlp2x_gelu",
        mm_vision_tower=...,
        mm_projector_type=...,
        tokenizer_model_max_length=77,
    )
    _, loaded, _, context = load_pretrained_model(folder, None, "LlavaQwen2-Align-TI-1B")
    assert torch.equal(logits(loaded, pictures(1)), logits(model, pictures(1)))
    assert context == 77


@pytest.mark.parametrize("tied", [False, True])
def test_projector_on_its_base(make_model, language_folder, pictures, tmp_path, tied, tower_folder):
    model = make_model(tied=tied)
    model.config.image_aspect_ratio = "pad"
    save_projector(model, tmp_path / "run")
    shutil.copytree(tower_folder("siglip"), tmp_path / "eyes")
    edit_config(tmp_path / "run", mm_vision_tower="../eyes")
    _, loaded, _, _ = load_pretrained_model(tmp_path / "run", language_folder("qwen2", tied), "run")
    assert torch.equal(logits(loaded, pictures(1)), logits(model, pictures(1)))
    assert loaded.config.image_aspect_ratio == "pad"
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied

    with pytest.raises(InputError, match="only a projector.*model_base"):
        load_pretrained_model(tmp_path / "run", None, "run")
    with pytest.raises(InputError, match="model type 'llama'; LlavaQwen2Config reads"):
        load_pretrained_model(tmp_path / "run", language_folder("llama"), "run")


def test_image_tokens_grow_the_table_only_when_needed(full):
    model, folder = full()
    edit_config(folder, mm_use_im_start_end=True)
    tokenizer, loaded, _, _ = load_pretrained_model(folder, None, "x")
    assert tokenizer.convert_tokens_to_ids("<im_start>") == len(tokenizer) - 2
    assert loaded.get_input_embeddings().weight.shape[0] == loaded.lm_head.weight.shape[0] == len(tokenizer)
    own = model.get_input_embeddings().weight
    assert torch.equal(loaded.get_input_embeddings().weight[: len(own)], own)


def test_a_table_larger_than_the_tokenizer_is_left_alone(full):
    model, folder = full()
    model.resize_token_embeddings(1000)
    model.save_pretrained(folder)
    edit_config(folder, mm_use_im_patch_token=True)
    tokenizer, loaded, _, _ = load_pretrained_model(folder, None, "x")
    assert "<im_patch>" in tokenizer.get_vocab()
    assert loaded.get_input_embeddings().weight.shape[0] == 1000


def test_not_a_llava_checkpoint(language_folder, tmp_path):
    with pytest.raises(InputError, match="model type 'qwen2'; expected a LLaVA checkpoint of type llava_qwen2"):
        load_pretrained_model(language_folder("qwen2"), None, "llava-qwen")
    with pytest.raises(InputError, match="no readable config.json"):
        load_pretrained_model(tmp_path, None, "llava")


def test_incomplete_checkpoints(full, tmp_path):
    _, folder = full()
    weights = load_file(folder / "model.safetensors")
    del weights["model.mm_projector.2.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="lacks 1 weights .* model.mm_projector.2.bias"):
        load_pretrained_model(folder, None, "x")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="neither weights nor mm_projector.bin"):
        load_pretrained_model(folder, None, "x")
    edit_config(folder, mm_vision_tower=None)
    with pytest.raises(InputError, match="names no vision tower"):
        load_pretrained_model(folder, None, "x")


def test_checkpoint_without_tokenizer(full):
    _, folder = full()
    for file in folder.glob("token*"):
        file.unlink()
    with pytest.raises(InputError, match="no readable tokenizer"):
        load_pretrained_model(folder, None, "x")


@pytest.mark.parametrize(
    ("keys", "want"),
    [
        ({}, 2048),
        ({"max_position_embeddings": 5}, 5),
        ({"max_position_embeddings": 5, "tokenizer_model_max_length": 4}, 4),
        ({"max_position_embeddings": 5, "tokenizer_model_max_length": 4, "max_sequence_length": 3}, 3),
    ],
)
def test_context_length(keys, want):
    from types import SimpleNamespace

    assert context_length(SimpleNamespace(**keys)) == want
