"""SigLIP and CLIP towers against transformers' own hidden states; frozen, and found by name or path."""

import json
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPVisionModel, SiglipModel, SiglipVisionModel

from llava.errors import InputError
from llava.model.vision_tower import build_vision_tower


def settings(name, layer=-2, feature="patch", checkpoint="") -> SimpleNamespace:
    return SimpleNamespace(
        mm_vision_tower=str(name),
        mm_vision_select_layer=layer,
        mm_vision_select_feature=feature,
        name_or_path=str(checkpoint),
    )


@pytest.mark.parametrize("layer", [-4, -3, -2, -1, 0, 1, 2, 3])
@pytest.mark.parametrize("kind", ["siglip", "clip"])
def test_selected_hidden_state(tower_folder, pictures, kind, layer):
    folder, images = tower_folder(kind), pictures(2)
    reference = {"siglip": SiglipVisionModel, "clip": CLIPVisionModel}[kind].from_pretrained(folder).eval()
    with torch.no_grad():
        want = reference(images, output_hidden_states=True).hidden_states[layer]
    if kind == "clip":
        want = want[:, 1:]
    tower = build_vision_tower(settings(folder, layer))
    got = tower(images)
    torch.testing.assert_close(got, want)
    assert got.shape == (2, tower.num_patches, tower.hidden_size) == (2, 4, 24)
    assert tower.image_size == 16


@pytest.mark.parametrize(("kind", "tokens"), [("siglip", 4), ("clip", 5)])
def test_cls_patch_keeps_the_class_token(tower_folder, pictures, kind, tokens):
    tower = build_vision_tower(settings(tower_folder(kind), feature="cls_patch"))
    assert tower(pictures(1)).shape[1] == tower.num_patches == tokens


@pytest.mark.parametrize(("kind", "model_class"), [("siglip_full", SiglipModel), ("clip_full", CLIPModel)])
def test_two_tower_checkpoint(tower_folder, pictures, kind, model_class, capfd):
    """The picture half of a picture-and-text checkpoint, without complaints about the other half."""
    reference = model_class.from_pretrained(tower_folder(kind)).eval()
    with torch.no_grad():
        want = reference.vision_model(pictures(1), output_hidden_states=True).hidden_states[-2]
    capfd.readouterr()
    got = build_vision_tower(settings(tower_folder(kind)))(pictures(1))
    torch.testing.assert_close(got, want[:, 1:] if kind == "clip_full" else want)
    assert "UNEXPECTED" not in "".join(capfd.readouterr())


def test_frozen_whatever_the_model_around_does(tower_folder, pictures):
    tower = build_vision_tower(settings(tower_folder("siglip")))
    around = torch.nn.Sequential(tower).train()
    assert around.training
    assert not any(module.training for module in tower.modules())
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    images = pictures(1).requires_grad_()
    assert not tower(images).requires_grad


def test_dtype_of_the_weights(tower_folder, pictures):
    tower = build_vision_tower(settings(tower_folder("siglip")), delay_load=True)
    tower.load_model(dtype=torch.bfloat16)
    assert tower.dtype == tower(pictures(1)).dtype == torch.bfloat16


def test_delayed_load(tower_folder, pictures):
    tower = build_vision_tower(settings(tower_folder("siglip")), delay_load=True)
    assert not list(tower.parameters())
    with pytest.raises(InputError, match="no weights yet"):
        tower(pictures(1))
    tower.load_model()
    assert tower(pictures(1)).shape == (1, 4, 24)


def test_image_processor_needs_no_crop_size(tower_folder):
    picture = Image.fromarray(np.full((40, 20, 3), 255, dtype=np.uint8))
    for kind in ("siglip", "clip"):
        tower = build_vision_tower(settings(tower_folder(kind)))
        pixels = tower.image_processor(picture, return_tensors="pt")["pixel_values"]
        assert tower(pixels).shape == (1, 4, 24)
    assert not getattr(build_vision_tower(settings(tower_folder("siglip"))).image_processor, "crop_size", None)


def test_relative_to_the_checkpoint_and_to_here(tower_folder, tmp_path, monkeypatch, pictures):
    folder = tower_folder("siglip")
    checkpoint = tmp_path / "run"
    checkpoint.mkdir()
    (tmp_path / "eyes").symlink_to(folder)
    beside = build_vision_tower(settings("../eyes", checkpoint=checkpoint))
    monkeypatch.chdir(tmp_path)
    here = build_vision_tower(settings("./eyes"))
    assert torch.equal(beside(pictures(1)), here(pictures(1)))


def test_missing_tower_says_where_it_looked(tmp_path):
    with pytest.raises(InputError, match=f"'nowhere/at/all' not found.*{tmp_path}/nowhere/at/all and nowhere"):
        build_vision_tower(settings("nowhere/at/all", checkpoint=tmp_path))
    with pytest.raises(InputError, match="'./gone' not found"):
        build_vision_tower(settings("./gone"))


def test_hub_name_that_cannot_be_read(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="'nobody/no-such-tower'.*config.json"):
        build_vision_tower(settings("nobody/no-such-tower"))


def test_wrong_kind_of_model(language_folder, tmp_path):
    with pytest.raises(InputError, match="model type 'qwen2'; expected one of siglip"):
        build_vision_tower(settings(language_folder("qwen2")))
    (tmp_path / "config.json").write_text("{ broken")
    with pytest.raises(InputError, match="no readable config.json"):
        build_vision_tower(settings(tmp_path))
    with pytest.raises(InputError, match="names no vision tower"):
        build_vision_tower(SimpleNamespace())


def test_tower_without_image_processor(tower_folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((tower_folder("siglip") / name).read_bytes())
    with pytest.raises(InputError, match="preprocessor_config.json"):
        build_vision_tower(settings(tmp_path))


@pytest.mark.parametrize("layer", [-5, 4])
def test_layer_out_of_range(tower_folder, layer):
    with pytest.raises(InputError, match=f"mm_vision_select_layer is {layer}.*3 layers: expected -4 to 3"):
        build_vision_tower(settings(tower_folder("siglip"), layer))


def test_unknown_feature_and_merge(tower_folder):
    with pytest.raises(InputError, match="mm_vision_select_feature is 'cls'"):
        build_vision_tower(settings(tower_folder("siglip"), feature="cls"))
    config = settings(tower_folder("siglip"))
    config.mm_patch_merge_type = "spatial_unpad"
    with pytest.raises(InputError, match="spatial_unpad"):
        build_vision_tower(config)


def test_pictures_of_another_size(tower_folder):
    tower = build_vision_tower(settings(tower_folder("siglip")))
    with pytest.raises(InputError, match=r"\[1, 3, 32, 32\].*\[N, 3, 16, 16\]"):
        tower(torch.zeros(1, 3, 32, 32))


def test_family_comes_from_the_config_not_the_path(tower_folder, tmp_path, pictures):
    """A SigLIP tower in a folder called clip."""
    folder = tmp_path / "clip-vit-large"
    folder.symlink_to(tower_folder("siglip"))
    assert json.loads((folder / "config.json").read_text())["model_type"] == "siglip_vision_model"
    assert build_vision_tower(settings(folder))(pictures(1)).shape == (1, 4, 24)
