"""One tower for two models: towers are told by what they are; features computed twice are the reference."""

import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, CLIPImageProcessorPil, SiglipImageProcessorPil

from align_ti.training.teacher import share_tower
from llava.constants import IMAGE_TOKEN_INDEX as IMG
from llava.errors import InputError
from llava.model import language_model_class, share_vision_tower
from llava.model.vision_tower import build_vision_tower
from llava.model.vision_tower.compare import same_values, tower_difference
from llava.model.vision_tower.keep import keep_tower
from tests.llava.model.test_checkpoint import edit_config
from tests.llava.model.test_vision_tower import settings


def build(folder: Path, layer: int = -2, feature: str = "patch", dtype: torch.dtype = torch.float32):
    tower = build_vision_tower(settings(folder, layer, feature), delay_load=True)
    tower.load_model(dtype=dtype)
    return tower


@pytest.fixture
def copy_of(tower_folder, tmp_path):
    """``copy_of(kind, **weights)``: a copy of a tower, with these numbers added to the weights of these names."""
    count = iter(range(99))

    def make(kind: str, **changes: float) -> Path:
        folder = tmp_path / f"copy{next(count)}"
        shutil.copytree(tower_folder(kind), folder)
        weights = load_file(folder / "model.safetensors")
        for name, change in changes.items():
            (found,) = [key for key in weights if key.removeprefix("vision_model.") == name]
            weights[found].view(-1)[-1] += change
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        return folder

    return make


WEIGHTS = {
    "nothing": {},
    "first weight": {"embeddings.patch_embedding.weight": 1e-3},
    "last layer that runs": {"encoder.layers.1.mlp.fc2.bias": 1e-3},
    "layer above": {"encoder.layers.2.mlp.fc2.bias": 1e-3},
    "norm above": {"post_layernorm.weight": 1e-3},
}


@pytest.mark.parametrize("changed", list(WEIGHTS))
@pytest.mark.parametrize("kind", ["siglip", "clip", "siglip_full"])
def test_towers_are_equal_where_their_features_are(tower_folder, copy_of, pictures, kind, changed):
    one, other = build(tower_folder(kind)), build(copy_of(kind, **WEIGHTS[changed]))
    equal = torch.equal(one(pictures(3)), other(pictures(3)))
    assert equal == (changed in ("nothing", "layer above", "norm above"))
    difference = tower_difference(one, other)
    assert (difference is None) == equal
    assert equal or "weights differ, first in " + next(iter(WEIGHTS[changed])) in difference


def test_the_other_half_and_unused_layers_do_not_matter(tower_folder, copy_of, pictures, tmp_path):
    """A copy of the vision half; a checkpoint cut to two layers whose last is the other's last but one."""
    both = build(tower_folder("clip_full"))
    half = build(Path(keep_tower(both, tmp_path)))
    assert tower_difference(both, half) is None and torch.equal(both(pictures(1)), half(pictures(1)))

    cut = copy_of("siglip")
    edit_config(cut, num_hidden_layers=2)
    weights = load_file(cut / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "layers.2." not in name}
    save_file(kept, cut / "model.safetensors", {"format": "pt"})
    whole, short = build(tower_folder("siglip"), layer=-2), build(cut, layer=-1)
    assert tower_difference(whole, short) is None and torch.equal(whole(pictures(1)), short(pictures(1)))
    assert "number of layers" in str(tower_difference(whole, build(cut, layer=-2)))


def test_configurations_image_processors_and_kinds(tower_folder, copy_of):
    one = build(tower_folder("siglip"))
    other = copy_of("siglip")
    edit_config(other, layer_norm_eps=1e-3)
    assert "layer_norm_eps is 1e-06 in one and 0.001 in the other" in tower_difference(one, build(other))
    other = copy_of("siglip")
    SiglipImageProcessorPil(size={"height": 16, "width": 16}, image_mean=[0.4] * 3).save_pretrained(other)
    assert tower_difference(one, build(other)) == "their image processors differ"
    assert "model_type" in str(tower_difference(one, build(tower_folder("clip"))))
    patch, whole = (build(tower_folder("clip"), feature=feature) for feature in ("patch", "cls_patch"))
    assert "number of visual tokens" in str(tower_difference(patch, whole))
    other = copy_of("clip")  # as the processor of a two-tower checkpoint names the class it belongs to
    CLIPImageProcessorPil.from_pretrained(other).save_pretrained(other)
    file = other / "preprocessor_config.json"
    file.write_text(file.read_text().replace("{", '{"processor_class": "CLIPProcessor",', 1))
    assert tower_difference(patch, build(other)) is None


def test_precision(tower_folder, copy_of):
    """Files of float32 loaded as bfloat16 equal the same files loaded as float32; other values do not."""
    one, rounded = build(tower_folder("siglip")), build(copy_of("siglip"), dtype=torch.bfloat16)
    assert tower_difference(one, rounded) is None and tower_difference(rounded, one) is None
    other = build(copy_of("siglip", **{"embeddings.patch_embedding.weight": 1.0}), dtype=torch.bfloat16)
    assert "weights differ" in str(tower_difference(one, other))
    assert not same_values(torch.zeros(2), torch.zeros(3))


def test_a_shared_tower_gives_the_same_answers(make_model, copy_of, pictures):
    teacher, student = make_model("qwen3"), make_model("qwen2")
    with torch.no_grad():
        want = student(torch.tensor([[IMG, 5]]), images=pictures(1)).logits
    student.get_model().vision_tower = build(copy_of("siglip"))
    share_vision_tower(student, teacher)
    assert student.get_vision_tower() is teacher.get_vision_tower()
    features = teacher.vision_features(pictures(1))
    with torch.no_grad():
        torch.testing.assert_close(student(torch.tensor([[IMG, 5]]), vision_features=features).logits, want)

    with pytest.raises(InputError, match="cannot share.*number of layers.*layer -2.*layer -1"):
        share_vision_tower(make_model(layer=-2), make_model(layer=-1))
    with pytest.raises(InputError, match="cannot share"):
        share_vision_tower(make_model(tower="siglip"), make_model(tower="clip"))


def test_a_tower_that_is_not_loaded_is_told_by_its_name(full, make_model, tower_folder, tmp_path, monkeypatch):
    _, folder = full()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eyes").symlink_to(tower_folder("siglip"))
    edit_config(folder, mm_vision_tower="eyes")  # another path to the same folder
    teacher = make_model("qwen3")
    student = language_model_class("qwen2").from_pretrained(folder, load_tower=False)
    share_vision_tower(student, teacher)
    assert student.get_vision_tower() is teacher.get_vision_tower()
    student = language_model_class("qwen2").from_pretrained(folder, load_tower=False)
    with pytest.raises(InputError, match="different names, layers or features"):
        share_vision_tower(student, make_model(tower="clip"))


def test_a_checkpoint_that_carries_its_own_tower_shares_none(full, make_model, pictures):
    """Of the same name as the student's, and yet another tower."""
    model, folder = full()
    weights = load_file(folder / "model.safetensors")
    for key, value in model.get_vision_tower().core.state_dict().items():
        weights[f"model.vision_tower.vision_tower.vision_model.{key}"] = value * 1.5
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    teacher, student = type(model).from_pretrained(folder), make_model()
    assert teacher.config.mm_vision_tower == student.config.mm_vision_tower
    own = teacher.get_vision_tower()
    assert not torch.equal(own(pictures(1)), student.get_vision_tower()(pictures(1)))
    assert not share_tower(student, teacher)
    assert teacher.get_vision_tower() is own


def test_the_log_says_whose_tower_is_whose(make_model, tower_folder, caplog):
    caplog.set_level(logging.INFO)
    student, teacher = make_model(tower="siglip"), make_model(tower="clip")
    assert not share_tower(student, teacher)
    siglip, clip = tower_folder("siglip"), tower_folder("clip")
    assert f"the teacher's is '{clip}'" in caplog.text and f"the student's '{siglip}'" in caplog.text
    assert AutoConfig.from_pretrained(clip).model_type == "clip_vision_model"
    assert share_tower(make_model(), make_model("qwen3"))
    assert "teacher and student share one vision tower" in caplog.text
