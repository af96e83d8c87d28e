"""Sizes from configurations: published parameter counts, towers, and where configurations come from."""

import json
import shutil
import types

import pytest
from transformers import SiglipVisionModel

from llava.errors import InputError
from llava.model.vision_tower import build_vision_tower
from llava.train import shapes
from llava.train.plan.sizes import count, model_size, shares_tower, teacher_size, tower_size

SIGLIP = "google/siglip-so400m-patch14-384"
PUBLISHED = {
    "Qwen/Qwen2-7B": 7_615_616_512,
    "Qwen/Qwen2-1.5B": 1_543_714_304,
    "Qwen/Qwen2-0.5B": 494_032_768,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "lmsys/vicuna-7b-v1.5": 6_738_415_616,
}
"""Parameters as the models' own safetensors files add up to."""

TOWERS = {
    SIGLIP: (428_225_600, 1152, 27, 729),
    "openai/clip-vit-large-patch14-336": (303_507_456, 1024, 24, 576),
    "openai/clip-vit-large-patch14": (303_179_776, 1024, 24, 256),
    "google/siglip-base-patch16-224": (92_884_224, 768, 12, 196),
    "timm:vit_so400m_patch14_siglip_384": (428_225_600, 1152, 27, 729),
    "timm:vit_so400m_patch14_siglip_gap_384.webli": (412_987_248, 1152, 27, 729),
    "timm:hf-hub:timm/ViT-SO400M-14-SigLIP-384": (428_225_600, 1152, 27, 729),
    "open_clip:ViT-L-14-336@openai": (303_507_456, 1024, 24, 576),
    "open_clip:ViT-L-14-quickgelu@dfn2b": (303_179_776, 1024, 24, 256),
    "open_clip:ViT-SO400M-14-SigLIP-384@webli": (428_225_600, 1152, 27, 729),
}
"""Parameters, width, layers and visual tokens, from the models' pages."""


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """The hub counts as unreachable."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    shapes.hub_answers.cache_clear()
    yield
    shapes.hub_answers.cache_clear()


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_parameters_are_the_published_ones(name):
    size = model_size(name, SIGLIP, "mlp2x_gelu")
    assert size.language == PUBLISHED[name]
    hidden = size.shape.hidden
    assert size.projector == 1152 * hidden + hidden + hidden * hidden + hidden
    assert size.tower.parameters == 428_225_600 and size.visual_tokens == 729
    assert size.sources == {"published"}


@pytest.mark.parametrize("name", ["Qwen/Qwen2-7B-Instruct", "Qwen/Qwen2-0.5B-Instruct", "Qwen/Qwen3-8B-Base"])
def test_both_forms_of_a_model_are_known(name):
    """Base and post-trained: a preset's names can be exchanged for the others, and a plan still be made offline."""
    other = name.removesuffix("-Instruct").removesuffix("-Base")
    assert model_size(name, SIGLIP, "mlp2x_gelu").language == PUBLISHED[other]


@pytest.mark.parametrize("name", list(TOWERS))
def test_towers(name):
    tower, source = tower_size(name)
    assert (tower.parameters, tower.width, tower.layers, tower.visual_tokens) == TOWERS[name]
    class_tokens = 0 if "siglip" in name.lower() else 1
    assert source == "published" and tower.tokens == tower.visual_tokens + class_tokens


def test_a_class_token_may_be_a_visual_token():
    assert tower_size("openai/clip-vit-large-patch14-336", select_feature="cls_patch")[0].visual_tokens == 577
    assert tower_size(SIGLIP, select_feature="cls_patch")[0].visual_tokens == 729


@pytest.mark.parametrize("layer", [-1, -2, 1])
def test_layers_above_the_selected_one_are_dropped_as_in_a_run(world, layer):
    config = types.SimpleNamespace(mm_vision_tower=str(world.tower), mm_vision_select_layer=layer)
    tower = build_vision_tower(config)
    found, source = tower_size(str(world.tower), layer)
    assert source == "read"
    assert found.parameters == sum(parameter.numel() for parameter in tower.parameters())
    assert found.layers == len(tower.core.encoder.layers)
    assert (found.visual_tokens, found.width) == (tower.num_patches, tower.hidden_size)


def test_towers_of_timm_keep_all_layers():
    assert tower_size("timm:vit_so400m_patch14_siglip_384", -2)[0].parameters == 428_225_600
    assert tower_size(SIGLIP, -2)[0].parameters < 428_225_600


def test_a_tower_of_unknown_size_is_not_counted():
    tower, source = tower_size("timm:convnext_xxlarge")
    assert not tower.known and source == "unknown"
    size = model_size("Qwen/Qwen2-0.5B", "timm:convnext_xxlarge", "mlp2x_gelu")
    assert size.total == size.language == PUBLISHED["Qwen/Qwen2-0.5B"]


def test_a_local_folder_of_timm_names_its_model(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_base_patch16_siglip_224"}))
    assert tower_size(f"timm:local-dir:{tmp_path}")[0].width == 768


@pytest.mark.towers
@pytest.mark.parametrize("name", ["timm:vit_base_patch16_siglip_224", "open_clip:ViT-B-16@openai"])
def test_installed_packages_are_asked(name):
    pytest.importorskip(name.partition(":")[0])
    tower, source = tower_size(name)
    assert source == "read" and (tower.width, tower.layers, tower.visual_tokens) == (768, 12, 196)


def test_a_teacher_has_its_own_tower_and_projector(world, tmp_path):
    """A LLaVA checkpoint says what it sees with, relative to its folder; a bare language model sees as the student."""
    config = json.loads((world.teacher_lm / "config.json").read_text())
    config |= {"model_type": "llava_qwen2", "mm_vision_tower": "eyes", "mm_projector_type": "linear"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copytree(world.tower, tmp_path / "eyes")
    student = model_size(str(world.student_lm), str(world.tower), "mlp2x_gelu")
    teacher = teacher_size(str(tmp_path), str(world.tower), "mlp2x_gelu", -1, "patch")
    assert teacher.projector == 16 * 48 + 48 and shares_tower(student, teacher)
    bare = teacher_size(str(world.teacher_lm), str(world.tower), "mlp2x_gelu", -2, "patch")
    assert bare.projector == 16 * 48 + 48 + 48 * 48 + 48 and not shares_tower(student, bare)


def test_counted_parameters_are_those_of_the_real_models(world):
    size = model_size(str(world.student_lm), str(world.tower), "mlp2x_gelu")
    assert size.tower.parameters == count(SiglipVisionModel.from_pretrained(world.tower))
    shape = size.shape
    norms_and_biases = 2 * shape.hidden + shape.queries + 2 * shape.keys
    assert size.layers == shape.layers * (shape.products + norms_and_biases) + shape.hidden


@pytest.mark.parametrize(
    "name, message",
    [
        ("nobody/nothing", "cannot be reached, and its shape is not among those known"),
        ("checkpoints/run/teacher", "there is no such folder"),
        ("./teacher", "there is no such folder"),
    ],
)
def test_models_that_cannot_be_had(name, message):
    with pytest.raises(InputError, match=message):
        model_size(name, SIGLIP, "linear")


def test_wrong_input(world, tmp_path):
    with pytest.raises(InputError, match="--vision_tower is missing"):
        model_size("Qwen/Qwen3-8B", None, "linear")
    with pytest.raises(InputError, match="is of model type 'qwen2'; expected SigLIP or CLIP"):
        tower_size(str(world.student_lm))
    with pytest.raises(InputError, match="--mm_vision_select_layer is 28, but"):
        tower_size(SIGLIP, 28)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="expected a model folder or hub name"):
        model_size(str(tmp_path), SIGLIP, "linear")
