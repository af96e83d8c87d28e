"""LoRA: what is trained and saved, loading merges it, resumption, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import Qwen2ForCausalLM

from llava.errors import InputError
from llava.model import language_model_class
from llava.model.builder import load_pretrained_model
from llava.model.language import LlavaQwen2ForCausalLM
from llava.model.lora import add_lora, base_of, save_lora
from llava.train import train

LORA = ("--lora_enable", "True", "--lora_r", "4", "--lora_alpha", "8", "--per_device_train_batch_size", "4")


def logits(model, pixels):
    ids = torch.tensor([[5, -200, 17, 40, 3]])
    with torch.no_grad():
        return model.eval()(input_ids=ids, images=pixels, attention_mask=torch.ones_like(ids)).logits


@pytest.fixture
def trained(run, tmp_path, monkeypatch):
    """Train adapters; returns the folder, the log and the model as it was at the end of training."""
    seen = []
    finish = train.finish
    monkeypatch.setattr(train, "finish", lambda trainer, model: (finish(trainer, model), seen.append(model)))

    def trained(*flags):
        log = run(tmp_path / "out", *LORA, *flags)
        return tmp_path / "out", log, seen.pop()

    return trained


@pytest.mark.parametrize("bias", ["none", "all"])
def test_a_loaded_adapter_is_the_trained_model(trained, world, bias):
    folder, _, model = trained("--lora_bias", bias)
    assert not list(folder.glob("model*.safetensors")), "the base model is not written again"
    adapter = load_file(folder / "adapter_model.safetensors")
    base = Qwen2ForCausalLM.from_pretrained(world.student_lm)
    layers = 2
    assert sum(".lora_A." in name for name in adapter) == 7 * layers
    assert sum(name.endswith(".bias") for name in adapter) == (0 if bias == "none" else 3 * layers)
    assert any(value.abs().max() > 0 for name, value in adapter.items() if ".lora_B." in name)
    assert not any("vision" in name or "mm_projector" in name for name in adapter)
    others = torch.load(folder / "non_lora_trainables.bin", weights_only=True)
    assert all(name.startswith("base_model.model.model.mm_projector.") for name in others) and len(others) == 4

    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted = logits(model, pixels)
    tokenizer, loaded, _, _ = load_pretrained_model(folder)
    torch.testing.assert_close(logits(loaded, pixels), wanted, rtol=1e-4, atol=1e-4)
    assert not any("lora" in name for name, _ in loaded.named_parameters())
    query = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(loaded.state_dict()[query], base.state_dict()[query])
    assert loaded.config.mm_template == "qwen" and len(tokenizer) > 200

    moved = folder.parent / "base elsewhere"
    shutil.copytree(world.student_lm, moved)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(world.student_lm)
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "/gone"}))
    with pytest.raises(InputError, match="adapter of '/gone'.*model_base"):
        load_pretrained_model(folder)
    again = load_pretrained_model(folder, moved)[1]
    torch.testing.assert_close(logits(again, pixels), wanted, rtol=1e-4, atol=1e-4)


def test_adapter_and_base_can_be_moved_together(world, tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    shutil.copytree(world.student_lm, tree / "models/base")
    monkeypatch.chdir(tree)
    model = LlavaQwen2ForCausalLM.from_pretrained("models/base")
    model.initialize_vision_modules(str(world.tower), mm_projector_type="linear", mm_vision_select_layer=-1)
    add_lora(model, str(Path("models/base").resolve()), r=2, alpha=4, dropout=0.0, bias="none")
    save_lora(model, tree / "runs/adapter")
    recorded = json.loads((tree / "runs/adapter/adapter_config.json").read_text())["base_model_name_or_path"]
    assert recorded == base_of(tree / "runs/adapter", None) == "./models/base"
    monkeypatch.chdir("/")
    moved = tree.rename(tmp_path / "moved")
    assert base_of(moved / "runs/adapter", None) == str(moved / "models/base")
    load_pretrained_model(moved / "runs/adapter")
    shutil.rmtree(moved / "models")
    with pytest.raises(InputError, match="adapter of './models/base'.*model_base"):
        load_pretrained_model(moved / "runs/adapter")


def test_peft_itself_reads_the_adapter(trained, world):
    """What LLaVA's loader does: the plain base model, ``PeftModel.from_pretrained``, no warning of missing weights."""
    folder, _, model = trained()
    base = LlavaQwen2ForCausalLM.from_pretrained(world.student_lm)
    wrapped = PeftModel.from_pretrained(base, str(folder))
    theirs = {name: value for name, value in wrapped.named_parameters() if ".lora_" in name}
    ours = {f"base_model.model.{name}": value for name, value in model.named_parameters() if ".lora_" in name}
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


def test_fresh_adapters_change_nothing(run, tmp_path):
    flags = ("--learning_rate", "0", "--max_steps", "2", "--per_device_train_batch_size", "4")
    plain = [entry["loss"] for entry in run(tmp_path / "a", *flags) if "loss" in entry]
    lora = [entry["loss"] for entry in run(tmp_path / "b", *LORA, *flags) if "loss" in entry]
    assert len(plain) == 2 and lora == pytest.approx(plain, rel=1e-6)


def test_resuming_gives_the_same_adapter(run, tmp_path):
    flags = (*LORA, "--save_strategy", "steps", "--save_steps", "2", "--learning_rate", "2e-3")
    out = tmp_path / "run"
    losses = [entry["loss"] for entry in run(out, *flags) if "loss" in entry]
    final = {name: (out / name).read_bytes() for name in ("adapter_model.safetensors", "non_lora_trainables.bin")}
    assert len(losses) == 6 and (out / "checkpoint-2/adapter_config.json").exists()
    for name in (*final, "checkpoint-4", "checkpoint-6"):
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert [entry["loss"] for entry in run(out, *flags) if "loss" in entry] == pytest.approx(losses, rel=1e-6)
    weights = load_file(out / "adapter_model.safetensors")
    assert final["adapter_model.safetensors"] == (out / "adapter_model.safetensors").read_bytes() and weights


def test_an_adapter_goes_on_from_another(trained, run, tmp_path):
    folder, _, _ = trained()
    run(tmp_path / "on", *LORA, "--lora_weight_path", str(folder), "--learning_rate", "0", "--max_steps", "1")
    before, after = (load_file(place / "adapter_model.safetensors") for place in (folder, tmp_path / "on"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(InputError, match="does not fit the model"):
        run(tmp_path / "rank", *LORA, "--lora_r", "2", "--lora_weight_path", str(folder))


def test_refusals(run, tmp_path, trained):
    with pytest.raises(InputError, match="--tune_mm_mlp_adapter"):
        run(tmp_path / "a", *LORA, "--tune_mm_mlp_adapter", "True")
    with pytest.raises(InputError, match="--lora_r 0.*rank of at least 1"):
        run(tmp_path / "b", *LORA, "--lora_r", "0")
    with pytest.raises(InputError, match="no adapter in"):
        run(tmp_path / "c", *LORA, "--lora_weight_path", str(tmp_path))
    folder, _, _ = trained()
    weights = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").write_bytes(b"")
    assert weights and language_model_class("qwen2")
    with pytest.raises(InputError, match=r"adapter_model.safetensors \(0 bytes\) is broken"):
        load_pretrained_model(folder)
