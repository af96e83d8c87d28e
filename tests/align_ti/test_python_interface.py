"""The Python interface: light to import, and the README's lines do what the command does."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import align_ti
from align_ti import KDConfig, ObjectiveConfig, SFTConfig, TPAConfig, distill, load
from align_ti.losses.registry import LOSSES
from align_ti.training import train
from llava.errors import InputError
from tests.runs import COMMON

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/python.md")


def example() -> str:
    """The first Python block of the README, or else of the page about Python."""
    for page in PAGES:
        block = re.search(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)
        if block:
            return block[1]
    raise AssertionError(f"no Python block in {' or '.join(PAGES)}")


def test_importing_the_package_is_light():
    program = "import sys, align_ti; print(sorted({'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT).stdout == "[]\n"


def test_public_names():
    assert {"Objective", "ObjectiveConfig", "AlignTITrainer", "distill", "load"} <= set(align_ti.__all__)
    for name in align_ti.__all__:
        assert getattr(align_ti, name).__name__ == name and name in dir(align_ti)
    for loss in LOSSES.values():
        assert getattr(align_ti, loss.Config.__name__) is loss.Config
    with pytest.raises(AttributeError, match="'align_ti' has no attribute 'MagicConfig'"):
        align_ti.MagicConfig  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        align_ti.distil  # noqa: B018


def test_the_readmes_lines(world, tuned_teacher, tmp_path, monkeypatch, capsys):
    assert len(example().strip().splitlines()) <= 10
    for place, target in {
        "checkpoints/teacher": tuned_teacher,
        "Qwen/Qwen2-0.5B": world.student_lm,
        "data/train.json": world.data,
        "data/images": world.images,
    }.items():
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).symlink_to(target)
    Image.open(world.images / "red.png").convert("RGB").save(tmp_path / "picture.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(example(), "README.md", "exec"), names)
    run = names["run"]
    assert run.path == Path("checkpoints/student") and run.steps == 3
    assert 0 < run.metrics["train_loss"] < 100 and run.metrics["train_runtime"] > 0
    assert f"{run.metrics['train_loss']}\n" in capsys.readouterr().out
    record = json.loads((run.path / "run_config.json").read_text())
    assert record["distill"]["tpa_d"] == 8 and record["distill"]["kd_weight"] == 0.5
    assert "0.5 x KD (Eq. 2)" in (run.path / "README.md").read_text()


@pytest.fixture
def places(world, tuned_teacher, tmp_path):
    """Arguments of ``distill`` on the tiny world."""
    return {
        "teacher": tuned_teacher,
        "student": world.student_lm,
        "data": [world.data],
        "images": world.images,
        "output_dir": tmp_path / "student",
    }


def test_the_same_as_the_command(places, world, tmp_path, monkeypatch):
    """Bit for bit; and a finished run is not trained again."""
    common = {"learning_rate": 2e-3, "max_steps": 2, "logging_steps": 1, "save_strategy": "no", "use_cpu": True}
    objective = ObjectiveConfig(sft=SFTConfig(weight=0.5), kd=KDConfig(), tpa=TPAConfig(d=2))
    run = distill(**places, objective=objective, **common)
    flags = [
        "--teacher_path", str(places["teacher"]), "--model_name_or_path", str(world.student_lm), *COMMON,
        "--vision_tower", str(world.tower), "--data_path", str(world.data), "--image_folder", str(world.images),
        "--losses", "sft,kd,tpa", "--sft_weight", "0.5", "--tpa_d", "2", "--max_steps", "2",
        "--output_dir", str(tmp_path / "command"),
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["train", *flags])
    train.main()
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (run.path, tmp_path / "command"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert {"loss", "sft", "kd", "tpa", "candidate_rows", "train_loss"} <= run.metrics.keys()
    assert run.metrics["kd"] == [line["kd"] for line in run.history if "kd" in line][-1]
    again = distill(**places, objective=objective, **common)
    assert again.metrics == run.metrics and again.steps == run.steps == 2


def test_asking(tuned_teacher, world):
    model = load(tuned_teacher)
    greedy = model.ask(world.images / "red.png", "What is in the picture?", max_new_tokens=5)
    assert greedy == model.ask(Image.open(world.images / "red.png"), "What is in the picture?", max_new_tokens=5)
    assert isinstance(model.ask(None, "Is there a lion?", max_new_tokens=3), str)
    with pytest.raises(InputError, match="nowhere.png"):
        model.ask("nowhere.png", "What?")
    with pytest.raises(InputError, match="empty"):
        model.ask(None, " ")


@pytest.mark.parametrize(
    "more, message",
    [
        ({"losses": "kd"}, r"losses: settings of the objective; give them in objective=ObjectiveConfig"),
        ({"tpa_d": 2}, "tpa_d: settings of the objective"),
        ({"objective": ObjectiveConfig(seed=1)}, r"give seed=\.\.\. to distill"),
        ({"learning_rat": 1e-3}, "unknown flag --learning_rat; did you mean --learning_rate"),
    ],
)
def test_refusals(more, message, places):
    with pytest.raises(InputError, match=message):
        distill(**{**places, **more})


def test_a_language_model_is_no_teacher(places, world):
    with pytest.raises(InputError, match="expected.*LLaVA"):
        distill(**{**places, "teacher": world.teacher_lm})
