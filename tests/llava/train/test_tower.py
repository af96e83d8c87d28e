"""A run's folder holds its own tower: it loads wherever it is moved to, whatever becomes of the original."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel, SiglipVisionModel

from align_ti.training.teacher import load_teacher
from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import InputError
from llava.export.to_hf import export_to_hf
from llava.export.to_llava import merge_to_llava
from llava.mm_utils import process_images
from llava.model.builder import load_pretrained_model

SHORT = ("--per_device_train_batch_size", "4", "--max_steps", "2")
SAVING = (*SHORT, "--save_strategy", "steps", "--save_steps", "1")


@pytest.fixture
def tower(world, tmp_path) -> Path:
    """A copy of the world's tower, to be removed."""
    return Path(shutil.copytree(world.tower, tmp_path / "towers" / "eyes"))


def named(folder: Path) -> str:
    return json.loads((folder / "config.json").read_text())["mm_vision_tower"]


def answers(model, processor, world) -> torch.Tensor:
    """Logits of a prompt with a picture."""
    images = process_images([Image.open(world.images / "red.png")], processor, model.config)
    with torch.no_grad():
        return model(torch.tensor([[5, IMAGE_TOKEN_INDEX, 7]]), images=images).logits


def load(folder: Path, base: Path | None = None):
    _, model, processor, _ = load_pretrained_model(folder, base)
    return model, processor


def moved(folder: Path, *gone: Path) -> Path:
    """The run's folder under another path, and the tower it was trained with no more."""
    target = folder.parent / "another machine" / "run"
    target.parent.mkdir(exist_ok=True)
    shutil.move(folder, target)
    for path in gone:
        shutil.rmtree(path)
    return target


def test_a_moved_run_loads_as_model_and_as_teacher(run, world, tower, tmp_path):
    run(tmp_path / "run", "--vision_tower", str(tower), *SAVING)
    assert (named(tmp_path / "run"), named(tmp_path / "run/checkpoint-1")) == ("vision_tower", "../vision_tower")
    want = answers(*load(tmp_path / "run"), world)
    half = answers(*load(tmp_path / "run/checkpoint-1"), world)

    folder = moved(tmp_path / "run", tower)
    assert str(tmp_path) not in (folder / "config.json").read_text()
    assert torch.equal(answers(*load(folder), world), want)
    assert torch.equal(answers(*load(folder / "checkpoint-1"), world), half)
    _, teacher = load_teacher(str(folder), torch.float32, torch.device("cpu"))
    assert torch.equal(answers(teacher, load(folder)[1], world), want)
    export_to_hf(str(folder), tmp_path / "hf")
    merge_to_llava(str(folder), tmp_path / "llava")
    assert named(tmp_path / "llava") == "vision_tower"
    shutil.rmtree(folder)
    assert torch.equal(answers(*load(tmp_path / "llava"), world), want)


def test_a_moved_projector_and_a_moved_adapter(run, world, tower, tmp_path):
    pytest.importorskip("peft")
    stages = {
        "pretrain": ("--tune_mm_mlp_adapter", "True"),
        "lora": ("--lora_enable", "True", "--lora_r", "2"),
    }
    want = {}
    for name, flags in stages.items():
        run(tmp_path / name, "--vision_tower", str(tower), *flags, *SAVING)
        want[name] = answers(*load(tmp_path / name, world.student_lm), world)
    shutil.rmtree(tower)
    for name in stages:
        folder = moved(tmp_path / name)
        assert (named(folder), named(folder / "checkpoint-2")) == ("vision_tower", "../vision_tower")
        for place in (folder, folder / "checkpoint-2"):
            assert torch.equal(answers(*load(place, world.student_lm), world), want[name])
        merge_to_llava(str(folder), tmp_path / f"whole {name}", str(world.student_lm))
        shutil.rmtree(folder / "vision_tower")
        with pytest.raises(InputError, match=f"'vision_tower' not found.*{folder}/config.json"):
            load(folder, world.student_lm)
        shutil.rmtree(folder)
        whole = answers(*load(tmp_path / f"whole {name}"), world)
        torch.testing.assert_close(whole, want[name], rtol=1e-3, atol=1e-3)  # an adapter is rounded into the weights


def test_a_moved_run_goes_on_and_students_start_from_it(run, world, tower, tmp_path):
    """Resuming with the run's own tower changes nothing; a run that starts from it gets a tower of its own."""
    flags = ("--per_device_train_batch_size", "4", "--save_strategy", "steps", "--save_steps", "2")
    run(tmp_path / "run", "--vision_tower", str(tower), *flags)
    final = (tmp_path / "run/model.safetensors").read_bytes()
    folder = moved(tmp_path / "run", tower)
    for checkpoint in folder.glob("checkpoint-*"):
        if checkpoint.name != "checkpoint-2":
            shutil.rmtree(checkpoint)
    (folder / "model.safetensors").unlink()
    before = (folder / "vision_tower/model.safetensors").stat().st_mtime_ns
    run(folder, "--vision_tower", str(folder / "vision_tower"), *flags)
    assert (folder / "model.safetensors").read_bytes() == final
    assert (folder / "vision_tower/model.safetensors").stat().st_mtime_ns == before, "left alone"
    assert named(folder) == "vision_tower"

    start = ["--model_name_or_path", str(folder), "--learning_rate", "0", *SHORT]
    want = answers(*load(folder), world)
    run(tmp_path / "next", "--vision_tower", "", *start)
    assert named(tmp_path / "next") == "vision_tower"
    shutil.rmtree(folder)
    assert torch.equal(answers(*load(tmp_path / "next"), world), want)


def test_only_the_vision_half_in_the_dtype_of_its_files(run, tmp_path):
    torch.manual_seed(0)
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**text, "num_hidden_layers": 3, "image_size": 32, "patch_size": 16}
    both = SiglipModel(SiglipConfig(vision_config=vision, text_config={**text, "vocab_size": 40}))
    both.to(torch.bfloat16).save_pretrained(tmp_path / "both")
    processor = SiglipImageProcessorPil(size={"height": 32, "width": 32}, image_mean=[0.1, 0.2, 0.3], resample=2)
    processor.save_pretrained(tmp_path / "both")
    run(tmp_path / "run", "--vision_tower", str(tmp_path / "both"), *SHORT)
    copy = load_file(tmp_path / "run/vision_tower/model.safetensors")
    original = load_file(tmp_path / "both/model.safetensors")
    assert {name.split(".")[0] for name in copy} == {"vision_model"} and len(copy) < len(original)
    assert all(torch.equal(tensor, original[name]) and tensor.dtype == torch.bfloat16 for name, tensor in copy.items())
    assert SiglipVisionModel.from_pretrained(tmp_path / "run/vision_tower").config.num_hidden_layers == 3, "all layers"
    _, processor = load(tmp_path / "run")
    assert (list(processor.image_mean), processor.resample) == ([0.1, 0.2, 0.3], 2)


def test_another_tower_than_that_of_the_run(run, world, tower, tmp_path):
    other = Path(shutil.copytree(tower, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    save_file({name: tensor * 1.5 for name, tensor in weights.items()}, other / "model.safetensors", {"format": "pt"})

    out = tmp_path / "run"
    run(out, "--vision_tower", str(tower), *SAVING)
    first = answers(*load(out / "checkpoint-2"), world)
    with pytest.raises(InputError, match="a run with different settings:\n.*vision_tower was .*eyes, now .*other"):
        run(out, "--vision_tower", str(other), *SAVING)
    run(out, "--vision_tower", str(other), *SAVING, "--resume", "never")
    assert not list(out.glob(".vision_tower*"))
    copy = load_file(out / "vision_tower/model.safetensors")
    assert all(torch.equal(tensor, weights[name] * 1.5) for name, tensor in copy.items())
    assert torch.equal(answers(*load(out / "earlier-run-1/checkpoint-2"), world), first), "it has kept its own"

    by_hand = (*SHORT, "--max_steps", "3", "--resume", str(out / "checkpoint-1"), "--vision_tower")
    with pytest.raises(InputError, match=f"{out}/vision_tower is not the vision tower '{tower}'.*another --output_dir"):
        run(out, *by_hand, str(tower))
    half = out / "vision_tower/model.safetensors"  # not whole: written again
    half.write_bytes(half.read_bytes()[:100])
    run(out, *by_hand, str(other))
    assert all(torch.equal(tensor, weights[name] * 1.5) for name, tensor in load_file(half).items())


def test_an_old_checkpoint_whose_tower_is_gone(run, world, tower, tmp_path):
    """It names its tower by an absolute path: the error says which and what to do, and both ways work."""
    out = tmp_path / "run"
    run(out, "--vision_tower", str(tower), *SHORT)
    want = answers(*load(out), world)
    shutil.rmtree(out / "vision_tower")
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "mm_vision_tower": str(tower)}))
    assert torch.equal(answers(*load(out), world), want)
    moved_tower = shutil.move(tower, tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"{tower}.*put the tower there.*--vision_tower.*{out}/config.json"):
        load(out)
    with pytest.raises(InputError, match=f"{tower}.*put the tower there"):
        run(tmp_path / "no", "--model_name_or_path", str(out), "--vision_tower", "", *SHORT)
    start = ("--model_name_or_path", str(out), "--learning_rate", "0", *SHORT)
    run(tmp_path / "next", *start, "--vision_tower", str(moved_tower))
    assert torch.equal(answers(*load(tmp_path / "next"), world), want)
    (out / "config.json").write_text(json.dumps({**config, "mm_vision_tower": str(moved_tower)}))
    assert torch.equal(answers(*load(out), world), want)


@pytest.mark.parametrize("layer", ["-1", "-2"])
def test_tower_weights_that_a_checkpoint_carries_stay_with_its_successor(run, world, tower, tmp_path, layer):
    """LLaVA's checkpoints may hold a tuned tower; the finished model must see through the same one."""
    start = tmp_path / "start"
    run(start, "--vision_tower", str(tower), *SHORT)
    weights = load_file(start / "model.safetensors")
    tuned = {name: tensor * 1.5 for name, tensor in load_file(tower / "model.safetensors").items()}
    prefix = "model.vision_tower.vision_tower.vision_model."
    weights |= {prefix + name.removeprefix("vision_model."): tensor for name, tensor in tuned.items()}
    save_file(weights, start / "model.safetensors", {"format": "pt"})
    flags = ("--model_name_or_path", str(start), "--learning_rate", "0", "--mm_vision_select_layer", layer, *SHORT)
    run(tmp_path / "next", "--vision_tower", "", *flags)
    copy = load_file(tmp_path / "next/vision_tower/model.safetensors")
    assert copy.keys() == tuned.keys() and all(torch.equal(tensor, tuned[name]) for name, tensor in copy.items())
    if layer == "-1":
        assert torch.equal(answers(*load(tmp_path / "next"), world), answers(*load(start), world))


def test_a_run_on_the_hub_is_loaded_with_its_tower(run, world, tower, tmp_path):
    """From the Hub's own cache, in a process that may not ask the network."""
    run(tmp_path / "run", "--vision_tower", str(tower), *SHORT)
    repository = tmp_path / "cache" / "hub" / "models--somebody--student"
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(tmp_path / "run", snapshot)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("0" * 40)
    shutil.rmtree(tower)
    code = (
        "from llava.model.builder import load_pretrained_model\n"
        "model = load_pretrained_model('somebody/student')[1]\n"
        "print(model.get_vision_tower().is_loaded, model.get_vision_tower().source)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200, cwd=Path(__file__).parents[3],
        env={"PATH": "", "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["True", str(snapshot / "vision_tower")]
