"""Saving and loading: key names, spellings, towers by path, projector files."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import InputError
from llava.model import LlavaLlamaForCausalLM, LlavaQwen2ForCausalLM, language_model_class
from llava.model.checkpoint import load_projector, save_projector
from llava.model.language import LANGUAGE_MODELS

IMG = IMAGE_TOKEN_INDEX
IDS = torch.tensor([[5, IMG, 6, 7, 8]])
FAMILIES = ["qwen2", "qwen3", "llama"]
PROJECTOR = [f"model.mm_projector.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")]


def logits(model, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS, images=images).logits


def edit_config(folder: Path, **changes) -> dict:
    """Set keys of a config.json, or remove those set to ``...``."""
    settings = json.loads((folder / "config.json").read_text()) | changes
    settings = {key: value for key, value in settings.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(settings))
    return settings


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip_and_key_names(make_model, language_folder, pictures, tmp_path, family, tied):
    model = make_model(family, tied)
    model.save_pretrained(tmp_path)
    plain = load_file(language_folder(family, tied) / "model.safetensors")
    saved = load_file(tmp_path / "model.safetensors")
    assert sorted(saved) == sorted([*plain, *PROJECTOR])  # LLaVA's names, nothing of the tower
    assert ("lm_head.weight" in saved) == (not tied)

    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == f"llava_{family}"
    assert config["architectures"] == [type(model).__name__]
    assert config["mm_projector_type"] == "mlp2x_gelu"
    assert config["mm_hidden_size"] == 24
    assert config["mm_vision_select_layer"] == -2

    for loader in (type(model), AutoModelForCausalLM):
        loaded, report = loader.from_pretrained(tmp_path, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]
        assert type(loaded) is type(model)
        assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied
        assert torch.equal(logits(loaded, pictures(1)), logits(model, pictures(1)))
        assert not any(p.requires_grad for p in loaded.get_vision_tower().parameters())
    assert type(AutoConfig.from_pretrained(tmp_path)).__name__ == f"Llava{family.capitalize()}Config"


def test_shards_and_dtype(make_model, pictures, tmp_path):
    model = make_model(dtype=torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    loaded = LlavaQwen2ForCausalLM.from_pretrained(tmp_path)
    assert loaded.dtype == loaded.get_vision_tower().dtype == torch.bfloat16
    assert torch.equal(logits(loaded, pictures(1)), logits(model, pictures(1)))


def test_tower_by_a_path_relative_to_the_checkpoint(make_model, pictures, tower_folder, tmp_path, monkeypatch):
    model = make_model()
    want = logits(model, pictures(1))
    model.save_pretrained(tmp_path / "bundle" / "run")
    shutil.copytree(tower_folder("siglip"), tmp_path / "bundle" / "tower")
    edit_config(tmp_path / "bundle" / "run", mm_vision_tower="../tower")
    shutil.move(tmp_path / "bundle", tmp_path / "moved")
    loaded = LlavaQwen2ForCausalLM.from_pretrained(tmp_path / "moved" / "run")
    assert torch.equal(logits(loaded, pictures(1)), want)
    loaded.save_pretrained(tmp_path / "elsewhere" / "deep")  # still finds the tower from its new place
    again = LlavaQwen2ForCausalLM.from_pretrained(tmp_path / "elsewhere" / "deep")
    assert torch.equal(logits(again, pictures(1)), want)

    edit_config(tmp_path / "moved" / "run", mm_vision_tower="moved/tower")
    monkeypatch.chdir(tmp_path)
    assert torch.equal(logits(LlavaQwen2ForCausalLM.from_pretrained("moved/run"), pictures(1)), want)


def test_missing_tower(make_model, tmp_path):
    make_model().save_pretrained(tmp_path)
    edit_config(tmp_path, mm_vision_tower="./gone")
    with pytest.raises(InputError, match="'./gone' not found"):
        LlavaQwen2ForCausalLM.from_pretrained(tmp_path)
    without = LlavaQwen2ForCausalLM.from_pretrained(tmp_path, load_tower=False)
    assert not without.get_vision_tower().is_loaded


def test_tower_of_another_width(make_model, tower_folder, tmp_path):
    make_model().save_pretrained(tmp_path)
    edit_config(tmp_path, mm_hidden_size=20, mm_projector_type="linear")
    weights = load_file(tmp_path / "model.safetensors")
    weights = {key: value for key, value in weights.items() if "mm_projector" not in key}
    weights["model.mm_projector.weight"], weights["model.mm_projector.bias"] = (
        torch.zeros(32, 20),
        torch.zeros(32),
    )
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="width 24, but the projector was made for 20"):
        LlavaQwen2ForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_tower_weights_in_the_checkpoint_are_used(make_model, pictures, tmp_path, format):
    """LLaVA's spelling, as older transformers nested it; layers above the selected one included."""
    model = make_model()
    model.save_pretrained(tmp_path)
    tower = model.get_vision_tower()
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(0.05)
    want = logits(model, pictures(1))
    weights = load_file(tmp_path / "model.safetensors")
    for key, value in tower.core.state_dict().items():
        weights[f"model.vision_tower.vision_tower.vision_model.{key}"] = value.clone()
    weights["model.vision_tower.vision_tower.vision_model.encoder.layers.2.mlp.fc1.bias"] = torch.zeros(32)
    if format == "safetensors":
        save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    else:
        (tmp_path / "model.safetensors").unlink()
        torch.save(weights, tmp_path / "pytorch_model.bin")
    loaded, report = LlavaQwen2ForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["unexpected_keys"] and not report["missing_keys"]
    assert torch.equal(logits(loaded, pictures(1)), want)


def authors_checkpoint(model, folder: Path) -> None:
    """Rewrite a saved checkpoint in the spelling of the paper authors' released ones."""
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    renamed = {
        key.replace("model.mm_projector.", "model.mm_projector.image_spatial_proj."): value
        for key, value in weights.items()
    }
    for key in model.get_vision_tower().core.state_dict():
        renamed[f"model.image_tower.vision_tower.vision_model.{key}"] = torch.zeros(1)  # never read
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    edit_config(
        folder,
        mm_image_tower=model.config.mm_vision_tower,
        mm_vision_tower=...,
        mm_video_tower=None,
        image_projector_type=model.config.mm_projector_type,
        mm_projector_type=...,
        video_projector_type="linear",
        video_global_proj=False,
        mm_use_im_start_end=False,
        tokenizer_padding_side="right",
        tokenizer_model_max_length=77,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_authors_spelling(make_model, pictures, tmp_path, family):
    model = make_model(family, dtype=torch.float64)
    images = pictures(1, dtype=torch.float64)
    authors_checkpoint(model, tmp_path / "theirs")
    names = load_file(tmp_path / "theirs" / "model.safetensors")
    assert "model.mm_projector.image_spatial_proj.2.bias" in names and not set(PROJECTOR) & set(names)
    loaded, report = type(model).from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert torch.equal(logits(loaded, images), logits(model, images))
    loaded.save_pretrained(tmp_path / "ours")  # and is written in LLaVA's
    assert set(PROJECTOR) <= set(load_file(tmp_path / "ours" / "model.safetensors"))
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["mm_vision_tower"] == model.config.mm_vision_tower and "mm_image_tower" not in config
    assert config["mm_projector_type"] == "mlp2x_gelu" and "image_projector_type" not in config


def test_a_plain_language_model_of_another_family(language_folder):
    with pytest.raises(InputError, match="model type 'qwen2'; LlavaLlamaConfig reads 'llava_llama' or .* 'llama'"):
        LlavaLlamaForCausalLM.from_pretrained(language_folder("qwen2"))


def test_language_model_class():
    for name, model_class in LANGUAGE_MODELS.items():
        assert language_model_class(name) is language_model_class(name.removeprefix("llava_")) is model_class
    with pytest.raises(InputError, match="'gpt2'.*qwen3 / llava_qwen3"):
        language_model_class("gpt2")


@pytest.mark.parametrize("tied", [False, True])
def test_trainer_saves_and_resumes_without_complaint(make_model, pictures, tmp_path, caplog, tied):
    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return {"ids": torch.tensor([5, IMG, 6, 7 + index]), "image": pictures(1, seed=index)[0]}

    def collate(rows):
        ids = torch.stack([row["ids"] for row in rows])
        return {"input_ids": ids, "labels": ids, "images": torch.stack([row["image"] for row in rows])}

    def train(model, steps, **kwargs):
        arguments = TrainingArguments(
            str(tmp_path), max_steps=steps, save_steps=1, logging_steps=1, per_device_train_batch_size=2,
            learning_rate=1e-2, lr_scheduler_type="constant", report_to=[], use_cpu=True, disable_tqdm=True,
            remove_unused_columns=False,
        )  # fmt: skip
        trainer = Trainer(model, arguments, data_collator=collate, train_dataset=Rows())
        trainer.train(**kwargs)
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    whole = train(make_model(tied=tied), 2)
    saved = load_file(tmp_path / "checkpoint-1" / "model.safetensors")
    assert not any("vision_tower" in key for key in saved)
    with caplog.at_level(logging.WARNING):
        logging.getLogger("transformers").propagate = True
        resumed = train(make_model(tied=tied), 2, resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
        logging.getLogger("transformers").propagate = False
    assert resumed == whole
    assert not [record.message for record in caplog.records if "missing keys" in record.message]


# Projector files


def test_projector_file(make_model, pictures, tmp_path):
    model = make_model()
    save_projector(model, tmp_path)
    weights = torch.load(tmp_path / "mm_projector.bin", weights_only=True)
    assert sorted(weights) == sorted(PROJECTOR)
    assert json.loads((tmp_path / "config.json").read_text())["mm_projector_type"] == "mlp2x_gelu"
    for source in (tmp_path, tmp_path / "mm_projector.bin"):
        other = make_model()
        torch.nn.init.zeros_(other.model.mm_projector[0].weight)
        load_projector(other, source)
        assert torch.equal(logits(other, pictures(1)), logits(model, pictures(1)))


@pytest.mark.parametrize(
    "prefix",
    ["model.mm_projector.image_spatial_proj.", "mm_projector.", "base_model.model.model.mm_projector."],
)
def test_projector_file_in_other_spellings(make_model, pictures, tmp_path, prefix):
    model = make_model()
    weights = {prefix + key: value for key, value in model.model.mm_projector.state_dict().items()}
    torch.save({**weights, "model.embed_tokens.weight": torch.zeros(1)}, tmp_path / "mm_projector.bin")
    other = make_model()
    torch.nn.init.zeros_(other.model.mm_projector[2].weight)
    load_projector(other, tmp_path)
    assert torch.equal(logits(other, pictures(1)), logits(model, pictures(1)))


def test_projector_that_does_not_fit(make_model, tmp_path):
    model = make_model()
    weights = {f"model.mm_projector.{k}": v for k, v in model.model.mm_projector.state_dict().items()}
    torch.save(weights | {PROJECTOR[0]: torch.zeros(32, 1152)}, tmp_path / "mm_projector.bin")
    before = model.model.mm_projector[2].weight.clone()
    with pytest.raises(InputError, match=r"0.weight has shape \[32, 1152\], the model's has \[32, 24\]"):
        load_projector(model, tmp_path)
    assert torch.equal(model.model.mm_projector[2].weight, before)
    with pytest.raises(InputError, match="'0.bias'.*linear.*'bias', 'weight'.*mm_projector_type"):
        load_projector(make_model(projector="linear"), tmp_path)
    with pytest.raises(InputError, match="no projector weights at .*nowhere"):
        load_projector(model, tmp_path / "nowhere")


def test_pretrained_projector_is_taken_at_initialisation(make_model, language_folder, tower_folder, tmp_path, pictures):
    model = make_model()
    save_projector(model, tmp_path)
    fresh = LlavaQwen2ForCausalLM.from_pretrained(language_folder("qwen2"))
    fresh.initialize_vision_modules(
        str(tower_folder("siglip")),
        "mlp2x_gelu",
        -2,
        pretrain_mm_mlp_adapter=str(tmp_path / "mm_projector.bin"),
    )
    assert torch.equal(logits(fresh, pictures(1)), logits(model, pictures(1)))
