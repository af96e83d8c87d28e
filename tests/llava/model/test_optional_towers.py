"""timm and open_clip towers, with real (random) weights on disk; skipped where the packages are missing."""

import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import InputError
from llava.model import LlavaQwen2ForCausalLM
from llava.model.vision_tower import build_vision_tower

SIZE, PATCH, WIDTH = 32, 16, 192


def settings(name: str, layer: int = -2, feature: str = "patch") -> SimpleNamespace:
    return SimpleNamespace(mm_vision_tower=name, mm_vision_select_layer=layer, mm_vision_select_feature=feature)


@pytest.fixture(scope="module")
def packages() -> Any:
    """timm and open_clip, if they are there."""
    timm = pytest.importorskip("timm", exc_type=ImportError)
    open_clip = pytest.importorskip("open_clip", exc_type=ImportError)
    return SimpleNamespace(timm=timm, open_clip=open_clip)


@pytest.fixture(scope="module")
def timm_model(packages, tmp_path_factory) -> tuple[Any, str]:
    """A random timm vision transformer and the tower's name for it."""
    torch.manual_seed(0)
    model = packages.timm.create_model("vit_tiny_patch16_224", img_size=SIZE, num_classes=0, depth=3).eval()
    folder = tmp_path_factory.mktemp("timm")
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps(
            {
                "architecture": "vit_tiny_patch16_224",
                "num_classes": 0,
                "model_args": {"img_size": SIZE, "depth": 3},
                "pretrained_cfg": {
                    "input_size": [3, SIZE, SIZE],
                    "mean": [0.1, 0.2, 0.3],
                    "std": [0.5, 0.6, 0.7],
                    "interpolation": "bilinear",
                    "num_classes": 0,
                },
            }
        )
    )
    return model, f"timm:local-dir:{folder}"


@pytest.fixture(scope="module")
def open_clip_model(packages, tmp_path_factory) -> tuple[Any, str]:
    """A random open_clip model and the tower's name for it."""
    torch.manual_seed(0)
    model = packages.open_clip.create_model("ViT-S-32", force_image_size=64).eval()
    folder = tmp_path_factory.mktemp("open_clip")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    config = packages.open_clip.get_model_config("ViT-S-32")
    config["vision_cfg"]["image_size"] = 64
    preprocess = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "interpolation": "bilinear"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    return model, f"open_clip:local-dir:{folder}"


def hidden_states(embedded: torch.Tensor, blocks: Any) -> list[torch.Tensor]:
    states = [embedded]
    for block in blocks:
        states.append(block(states[-1]))
    return states


@pytest.mark.towers
@pytest.mark.parametrize("layer", [-3, -2, -1, 1, 3])
def test_timm_selected_hidden_state(timm_model, layer):
    model, name = timm_model
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        want = hidden_states(model.norm_pre(model._pos_embed(model.patch_embed(images))), model.blocks)[layer]
    tower = build_vision_tower(settings(name, layer))
    torch.testing.assert_close(tower(images), want[:, 1:])
    assert (tower.num_patches, tower.hidden_size, tower.image_size) == (4, WIDTH, SIZE)
    with_class = build_vision_tower(settings(name, layer, "cls_patch"))
    torch.testing.assert_close(with_class(images), want)
    assert with_class.num_patches == 5


@pytest.mark.towers
@pytest.mark.parametrize("layer", [-3, -2, -1, 1])
def test_open_clip_selected_hidden_state(open_clip_model, layer):
    model, name = open_clip_model
    visual = model.visual
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        want = hidden_states(visual._embeds(images), visual.transformer.resblocks)[layer]
    tower = build_vision_tower(settings(name, layer))
    torch.testing.assert_close(tower(images), want[:, 1:])
    assert (tower.num_patches, tower.hidden_size, tower.image_size) == (4, want.shape[2], 64)
    torch.testing.assert_close(build_vision_tower(settings(name, layer, "cls_patch"))(images), want)


@pytest.mark.towers
@pytest.mark.parametrize("which", ["timm_model", "open_clip_model"])
def test_processor_frozen_and_inside_a_model(which, request, language_folder, tmp_path):
    _, name = request.getfixturevalue(which)
    tower = build_vision_tower(settings(name))
    white = Image.fromarray(np.full((20, 50, 3), 255, dtype=np.uint8))
    pixels = tower.image_processor(white, return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, tower.image_size, tower.image_size)
    torch.testing.assert_close(pixels[0, :, 0, 0], torch.tensor([0.9 / 0.5, 0.8 / 0.6, 0.7 / 0.7]))

    model = LlavaQwen2ForCausalLM.from_pretrained(language_folder("qwen2"))
    model.initialize_vision_modules(name, "mlp2x_gelu", -2)
    ids = torch.tensor([[5, IMAGE_TOKEN_INDEX, 6]])
    model.train()(ids, labels=ids, images=pixels).loss.backward()
    assert all(p.grad is None for p in model.get_vision_tower().parameters())
    model.save_pretrained(tmp_path)
    loaded = LlavaQwen2ForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(ids, images=pixels).logits, model.eval()(ids, images=pixels).logits)


@pytest.mark.towers
def test_wrong_names(packages, timm_model, open_clip_model):
    with pytest.raises(InputError, match="timm cannot load .*no_such_model"):
        build_vision_tower(settings("timm:no_such_model"))
    with pytest.raises(InputError, match="names no weights: write open_clip:ViT-S-32@PRETRAINED"):
        build_vision_tower(settings("open_clip:ViT-S-32"))
    with pytest.raises(InputError, match="open_clip cannot load"):
        build_vision_tower(settings("open_clip:ViT-S-32@/no/such/file.pt"))
    for _, name in (timm_model, open_clip_model):
        with pytest.raises(InputError, match="patch embedding"):
            build_vision_tower(settings(name, 0))


@pytest.mark.parametrize(("name", "package"), [("timm:vit", "timm"), ("open_clip:ViT-S-32@openai", "open_clip")])
def test_without_the_package(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(InputError, match=f"needs {package}.*pip install align-ti\\[towers\\]"):
        build_vision_tower(settings(name))
