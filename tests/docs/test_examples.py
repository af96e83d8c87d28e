"""The Python examples of docs/export.md run, after its commands, on a tiny checkpoint."""

import io
import re
from pathlib import Path

import pytest
from PIL import Image

from llava.train import train
from tests.runs import run_module

PAGE = (Path(__file__).resolve().parents[2] / "docs/export.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory) -> Path:
    """A folder with the names that the page uses: ``CHECKPOINT`` and ``picture.jpg``."""
    folder = tmp_path_factory.mktemp("examples")
    Image.new("RGB", (40, 30), (220, 30, 30)).save(folder / "picture.jpg")
    flags = {
        "model_name_or_path": world.student_lm, "vision_tower": world.tower, "mm_projector_type": "mlp2x_gelu",
        "version": "qwen", "data_path": world.data, "image_folder": world.images, "max_steps": 1,
        "output_dir": folder / "CHECKPOINT", "use_cpu": True, "report_to": "none", "dataloader_pin_memory": False,
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sys.argv", ["train", *(str(word) for name, value in flags.items() for word in (f"--{name}", value))]
        )
        train.main()
    return folder


def run_command(command: str) -> None:
    """``python -m MODULE FLAGS`` in this process; the command must be on the page."""
    assert f"{command}\n" in re.sub(r" +#.*", "", PAGE)
    with pytest.raises(SystemExit) as end:
        run_module(command.partition("python -m ")[2].split())
    assert not end.value.code


def test_both_forms_give_one_answer(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    run_command("python -m llava.export --to hf --model_path CHECKPOINT --output DIR")
    answers = []
    for example in PYTHON:
        capsys.readouterr()
        exec(compile(example, "docs/export.md", "exec"), {})
        answers.append(capsys.readouterr().out)
    assert len(answers) == 2 and answers[0].strip()
    assert answers[0] == answers[1]


def test_a_question_through_a_pipe(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.stdin", io.StringIO("What is on the left?\n"))
    capsys.readouterr()
    run_command(
        'echo "What is on the left?" | python -m llava.serve.cli --model-path CHECKPOINT --image-file picture.jpg',
    )
    assert capsys.readouterr().out.strip()
