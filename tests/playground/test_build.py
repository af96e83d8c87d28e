"""The builder: idempotent, careful with what it did not make, clear about bad arguments."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from llava.errors import InputError
from playground.mini.build import BuildConfig, build, code_version, read_manifest

SMALL = BuildConfig(6, pretrain_scenes=4, text_documents=5, word_scenes=3, held_out_scenes=3, eval_scale=0.02, size=48)


def test_manifest_tells_what_was_built(mini_build, mini_config):
    manifest = read_manifest(mini_build)
    assert manifest["arguments"]["scenes"] == mini_config.scenes and manifest["version"] == code_version()
    assert manifest["counts"]["finetune.json"] == 180 and manifest["counts"]["pretrain.json"] > 4 * 40
    assert manifest["seconds"] > 0
    texts = [json.loads(line)["text"] for line in (mini_build / "text.jsonl").read_text().splitlines()]
    assert len(texts) == manifest["counts"]["text.jsonl"] == 100
    assert len(json.loads((mini_build / "words.json").read_text())) == manifest["counts"]["words.json"] > 7 * 30
    assert sorted(path.name for path in mini_build.iterdir()) == [
        "eval", "finetune.json", "held_out.json", "images", "manifest.json", "pretrain.json", "text.jsonl",
        "tower.jsonl", "words.json",
    ]  # fmt: skip


def test_held_out_conversations_are_about_pictures_of_their_own(mini_build):
    """Neither training nor a benchmark nor the tower has seen them."""
    held_out = json.loads((mini_build / "held_out.json").read_text())
    pictures = {sample["image"] for sample in held_out if "image" in sample}
    assert pictures and all((mini_build / "images" / picture).is_file() for picture in pictures)
    for name in ("finetune.json", "pretrain.json"):
        assert not pictures & {sample.get("image") for sample in json.loads((mini_build / name).read_text())}
    assert not any("test/" in line for line in (mini_build / "tower.jsonl").read_text().splitlines())
    own = {(mini_build / "images" / picture).read_bytes() for picture in pictures}
    assert not any(path.read_bytes() in own for path in (mini_build / "eval").rglob("*.png"))


def test_second_build_does_nothing_and_another_argument_builds_anew(tmp_path):
    out = tmp_path / "build"
    first = build(out, SMALL)
    (out / "models").mkdir()
    (out / "models/tower.bin").write_text("kept")
    stamp = os.stat(out / "finetune.json").st_mtime_ns
    assert build(out, SMALL) == first
    assert os.stat(out / "finetune.json").st_mtime_ns == stamp
    (out / ".partial").mkdir()  # what a killed build leaves
    (out / ".partial/pretrain.json").write_text("half")
    second = build(out, replace(SMALL, scenes=7))
    assert second["counts"]["finetune.json"] == 21
    assert (out / "models/tower.bin").read_text() == "kept"
    assert not (out / ".partial").exists()
    assert len(list((out / "images/train").iterdir())) == 7


def test_contents_are_known_by_what_models_train_on(tmp_path):
    """More questions to ask change nothing for them; other scenes do."""
    contents = build(tmp_path, SMALL)["contents"]
    assert build(tmp_path, replace(SMALL, eval_scale=0.03, held_out_scenes=4))["contents"] == contents
    assert build(tmp_path, replace(SMALL, seed=1))["contents"] != contents


def test_workers_do_not_change_the_result(tmp_path):
    build(tmp_path / "one", SMALL, workers=1)
    build(tmp_path / "two", SMALL, workers=2)
    for path in sorted((tmp_path / "one").rglob("*")):
        if path.is_file() and path.name != "manifest.json":
            assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_damaged_manifest_means_building_anew(tmp_path):
    build(tmp_path, SMALL)
    (tmp_path / "manifest.json").write_text("{")
    assert read_manifest(tmp_path) is None
    build(tmp_path, SMALL)
    assert read_manifest(tmp_path)["counts"]["text.jsonl"] == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scenes": 0}, "--scenes is 0"),
        ({"samples_per_scene": 0}, "--samples-per-scene is 0"),
        ({"eval_scale": 0}, "--eval-scale is 0"),
        ({"size": 8}, "--size is 8"),
    ],
)
def test_bad_numbers_are_named(tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        build(tmp_path, replace(SMALL, **change))


def test_out_must_be_a_folder_and_scale_positive(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        build(tmp_path / "file", SMALL)
    with pytest.raises(InputError, match="--scale is 0"):
        SMALL.scaled(0)
    assert BuildConfig().scaled(0.5) == replace(
        BuildConfig(),
        scenes=4000,
        held_out_scenes=500,
        pretrain_scenes=4000,
        text_documents=8000,
        word_scenes=6000,
        eval_scale=0.5,
    )


def test_command_line(tmp_path):
    root = Path(__file__).resolve().parents[2]
    command = [
        sys.executable,
        "-m",
        "playground.mini.build",
        "--out",
        str(tmp_path / "b"),
        "--scale",
        "0.001",
    ]
    done = subprocess.run([*command, "--size", "40"], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert read_manifest(tmp_path / "b")["arguments"]["scenes"] == 8
    bad = subprocess.run([*command, "--size", "4"], cwd=root, capture_output=True, text=True, timeout=120)
    assert bad.returncode == 2 and "--size is 4 px" in bad.stderr and "Traceback" not in bad.stderr
