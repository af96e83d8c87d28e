"""Files of weights that are cut short are refused by name; what the libraries can read is the reference."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from align_ti.training.teacher import load_teacher
from llava.errors import InputError
from llava.model.builder import load_pretrained_model
from llava.model.checkpoint import load_projector, save_projector
from llava.model.language import language_model_class
from llava.model.vision_tower import build_vision_tower
from llava.model.weight_files import broken_weight_files, check_weight_files, model_files
from tests.llava.model.test_vision_tower import settings


def cut(file: Path, size: int | None = None) -> None:
    """Shorten a file, to half if no size is given; a folder's files are links or not, the original stays."""
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[: len(content) // 2 if size is None else size])


def readable(file: Path) -> bool:
    """What the libraries say, all of it read."""
    try:
        if file.suffix == ".safetensors":
            load_file(file)
        else:
            torch.load(file, weights_only=True)
    except Exception:  # each library has its own kinds
        return False
    return True


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_every_length_as_the_libraries_judge_it(name, tmp_path):
    file = tmp_path / name
    weights = {"a": torch.arange(12.0).reshape(3, 4), "empty": torch.zeros(0), "b": torch.ones(5, dtype=torch.bfloat16)}
    save_file(weights, file, {"format": "pt"}) if name.endswith("safetensors") else torch.save(weights, file)
    whole = file.read_bytes()
    verdicts = set()
    for length in [*range(0, len(whole), 7), *range(len(whole) - 40, len(whole) + 1), len(whole) + 3]:
        file.write_bytes((whole + b"\0\0\0")[:length])
        broken = broken_weight_files(tmp_path)
        assert (not broken) == readable(file), length
        assert [found.path for found in broken] in ([], [file])
        verdicts.add(not broken)
    assert verdicts == {True, False}


def test_the_message_names_file_sizes_and_what_to_do(full, tmp_path):
    _, folder = full()
    file = folder / "model.safetensors"
    size = file.stat().st_size
    check_weight_files(folder)
    cut(file, size - 100)
    message = f"{file} has {size - 100:,} bytes, and its header asks for {size:,}.*copy or download the file again"
    with pytest.raises(InputError, match=message):
        check_weight_files(folder)


def test_files_that_the_index_names(make_model, tmp_path):
    make_model().save_pretrained(tmp_path, max_shard_size="20KB")
    index = tmp_path / "model.safetensors.index.json"
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert model_files(tmp_path) == shards and len(shards) > 2
    assert broken_weight_files(tmp_path) == []
    shards[1].unlink()
    cut(shards[2])
    assert [found.path for found in broken_weight_files(tmp_path)] == shards[1:3]
    with pytest.raises(InputError, match=f"{shards[1]} is missing; 1 more of its files are broken"):
        check_weight_files(tmp_path)
    cut(index)
    assert index in [found.path for found in broken_weight_files(tmp_path)]
    with pytest.raises(InputError, match="model.safetensors.index.json .* no readable list of weight files"):
        load_pretrained_model(tmp_path)


def test_what_else_a_checkpoint_of_a_run_holds(tmp_path):
    (tmp_path / "global_step4").mkdir()
    names = ["optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin", "mm_projector.bin"]
    names += ["global_step4/zero_pp_rank_0_mp_rank_00_optim_states.pt", "global_step4/mp_rank_00_model_states.pt"]
    for name in names:
        torch.save({"state": torch.arange(99)}, tmp_path / name)
    save_file({"a": torch.ones(9)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "latest").write_text("global_step4")
    (tmp_path / "trainer_state.json").write_text("{}")
    assert broken_weight_files(tmp_path) == []
    for name in [*names, "adapter_model.safetensors"]:
        whole = (tmp_path / name).read_bytes()
        cut(tmp_path / name)
        assert [found.path for found in broken_weight_files(tmp_path)] == [tmp_path / name]
        (tmp_path / name).write_bytes(whole)
    shutil.rmtree(tmp_path / "global_step4")
    assert [str(found.path) for found in broken_weight_files(tmp_path)] == [str(tmp_path / "global_step4")]
    cut(tmp_path / "mm_projector.bin")
    cut(tmp_path / "optimizer.pt")
    with pytest.raises(InputError, match="mm_projector.bin .* is cut short") as refused:
        check_weight_files(tmp_path)  # the optimizer's state is not loaded as weights
    assert "more of its files" not in str(refused.value)


def test_a_pointer_of_git_lfs_and_old_pickles(tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    check_weight_files(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match=r"pytorch_model.bin \(22 bytes\) is not a file that PyTorch wrote"):
        check_weight_files(tmp_path)
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(InputError, match="model.safetensors .*`git lfs pull`"):
        check_weight_files(tmp_path)
    check_weight_files("owner/name")


def test_cut_models_towers_and_projectors_are_refused_by_name(full, language_folder, tower_folder, tmp_path):
    model, folder = full()
    save_projector(model, tmp_path / "projector")
    file = tmp_path / "projector" / "mm_projector.bin"
    cut(file)
    with pytest.raises(InputError, match=f"{file} .* is cut short"):
        load_projector(model, file.parent)
    with pytest.raises(InputError, match=f"{file} .* is cut short"):
        load_pretrained_model(file.parent, language_folder("qwen2"))

    cut(folder / "model.safetensors")
    for load in (load_pretrained_model, lambda path: load_teacher(str(path), torch.float32, torch.device("cpu"))):
        with pytest.raises(InputError, match=f"{folder}/model.safetensors has .* header asks for"):
            load(folder)

    for name, source in (("lm", language_folder("qwen2")), ("tower", tower_folder("siglip"))):
        shutil.copytree(source, tmp_path / name)
        cut(tmp_path / name / "model.safetensors")
    with pytest.raises(InputError, match=f"{tmp_path}/lm/model.safetensors has"):
        language_model_class("qwen2").from_pretrained(tmp_path / "lm")
    with pytest.raises(InputError, match=f"{tmp_path}/tower/model.safetensors has"):
        build_vision_tower(settings(tmp_path / "tower"))


def test_cut_adapters_are_refused_by_name(make_model, language_folder, qwen_tokenizer, tmp_path):
    pytest.importorskip("peft")
    from llava.model.lora import add_lora, load_lora, save_lora

    model = make_model()
    add_lora(model, str(language_folder("qwen2")), r=2, alpha=4, dropout=0.0, bias="none")
    model.get_model().mm_projector.requires_grad_(True)
    save_lora(model, tmp_path)
    qwen_tokenizer.save_pretrained(tmp_path)
    load_pretrained_model(tmp_path)
    for name in ("adapter_model.safetensors", "non_lora_trainables.bin"):
        whole = (tmp_path / name).read_bytes()
        cut(tmp_path / name)
        with pytest.raises(InputError, match=f"{tmp_path}/{name}"):
            load_pretrained_model(tmp_path)
        with pytest.raises(InputError, match=f"{tmp_path}/{name}"):
            load_lora(model, tmp_path)
        (tmp_path / name).write_bytes(whole)


def test_the_command_line_says_it_in_one_line(world, tmp_path):
    """The real entry point, in a process of its own."""
    import subprocess
    import sys

    shutil.copytree(world.student_lm, tmp_path / "lm")
    cut(tmp_path / "lm" / "model.safetensors")
    done = subprocess.run(
        [
            sys.executable, "-m", "llava.train.train", "--model_name_or_path", str(tmp_path / "lm"), "--vision_tower",
            str(world.tower), "--data_path", str(world.data), "--image_folder", str(world.images), "--version", "qwen",
            "--output_dir", str(tmp_path / "out"), "--use_cpu", "True", "--report_to", "none",
        ],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr[-2000:]
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: {tmp_path}/lm/model.safetensors has ") and "Traceback" not in done.stderr
    assert json.loads((tmp_path / "lm" / "config.json").read_text())["model_type"] == "qwen2"
