"""Where the full-scale recipes find the data: what ``llava.prepare`` made, else what it reads."""

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image

from align_ti.recipes.resolve import resolve
from llava.prepare import cli, report
from llava.prepare.sources import MIXES

ROOT = Path(__file__).resolve().parents[2]
RECIPES = {
    resolve(name).script: name for name in ("teacher-pretrain", "teacher-finetune", "student-pretrain", "align-ti")
}
"""The recipe that a script runs."""


def trained_on(command: str) -> tuple[str, str]:
    """Annotation file and image folder that a command trains on."""
    bash, script, *flags = shlex.split(command)
    recipe = resolve(RECIPES[f"{bash} {script}"], None, flags)
    return recipe.text("data_path"), recipe.text("image_folder")


def places(mix: str, data: Path | str, *flags: str) -> tuple[str, str]:
    """Annotation file and image folder that a mix's script would train on."""
    return trained_on(shlex.join(["bash", MIXES[mix].script, "--data_root", str(data), *flags]))


@pytest.mark.parametrize("mix", MIXES)
def test_published_files_are_looked_for_where_the_preparation_looks(mix, tmp_path):
    assert places(mix, tmp_path)[0] == f"{tmp_path}/{MIXES[mix].places[0]}", "the first, when there is none"
    for place in reversed(MIXES[mix].places):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("[]")
        assert places(mix, tmp_path)[0] == str(MIXES[mix].find(tmp_path)) == f"{tmp_path}/{place}"


def test_the_captions_pictures_are_found_in_either_usual_place(tmp_path):
    assert places("teacher-pretrain", tmp_path)[1] == f"{tmp_path}/LLaVA-Pretrain/images"
    (tmp_path / "llava/llava_pretrain/images").mkdir(parents=True)
    assert places("teacher-pretrain", tmp_path)[1] == f"{tmp_path}/llava/llava_pretrain/images"
    (tmp_path / "LLaVA-Pretrain/images").mkdir(parents=True)
    assert places("teacher-pretrain", tmp_path)[1] == f"{tmp_path}/LLaVA-Pretrain/images"
    assert places("student-pretrain", tmp_path)[1] == str(tmp_path)


@pytest.mark.parametrize("pictures", ["LLaVA-Pretrain/images", "llava/llava_pretrain/images"])
@pytest.mark.parametrize("mix", MIXES)
def test_after_the_preparation_the_scripts_just_work(mix, pictures, tmp_path, capsys):
    """No flag is needed: what was made is taken, its pictures are found, and the report says so."""
    rows = [("1", "00453/1.jpg" if mix == "teacher-pretrain" else "llava/llava_pretrain/images/00453/1.jpg")]
    rows += [] if mix == "teacher-pretrain" else [("2", "coco/train2017/2.jpg")]
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]
    published = tmp_path / MIXES[mix].places[0]
    published.parent.mkdir(parents=True, exist_ok=True)
    published.write_text(json.dumps([{"id": name, "image": path, "conversations": turns} for name, path in rows]))
    for name in (f"{pictures}/00453/1.jpg", "coco/train2017/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert cli.main([mix, "--data", str(tmp_path), "--any_checksum", "--check_images", "--workers", "0"]) == 0
    data, images = places(mix, tmp_path)
    assert data == f"{tmp_path}/mixes/{mix}.json" and images == str(tmp_path)
    assert all((Path(images) / entry["image"]).is_file() for entry in json.loads(Path(data).read_text()))
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  train "))
    assert trained_on(said.removeprefix("  train").strip()) == (data, images)


def test_flags_come_before_what_was_made(tmp_path):
    (tmp_path / "mixes").mkdir()
    (tmp_path / "mixes/student-finetune.json").write_text("[]")
    made = f"{tmp_path}/mixes/student-finetune.json"
    assert places("student-finetune", tmp_path) == (made, str(tmp_path))
    assert places("student-finetune", tmp_path, "--image_folder", "/pictures") == (made, "/pictures")
    mine = places("student-finetune", tmp_path, "--data_path", "mine.json")
    assert mine == ("mine.json", str(tmp_path))


def test_the_usual_data_folder_needs_no_flag(monkeypatch, tmp_path, capsys):
    """Where the data lie where the presets look by themselves, the report names the script alone."""
    assert report.DATA_ROOT == ROOT / trained_on("bash scripts/distill/align_ti.sh")[1]
    monkeypatch.setattr(report, "DATA_ROOT", tmp_path)
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}]
    (tmp_path / "llava_v1_5_mix665k.json").write_text(json.dumps([{"id": "1", "conversations": turns}]))
    cli.main(["teacher-finetune", "--data", str(tmp_path)])
    assert capsys.readouterr().out.endswith("\n  train     bash scripts/teacher/finetune.sh\n")
