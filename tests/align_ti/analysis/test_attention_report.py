"""The maps' report on real checkpoints: its files, its layers, its measure of likeness, and what it refuses."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image

from align_ti.analysis.attention_pictures import Column, Viewer, draw_maps
from align_ti.analysis.attention_report import as_markdown, choose_layers, likeness, look, overlaps, pick_views
from llava.data.images import load_image
from llava.errors import InputError
from llava.serve.overlay import SeenBox


@pytest.fixture
def questions(world, tmp_path):
    """Two pictures with two questions that look somewhere, one with a single one, one with none."""
    folder = tmp_path / "images"
    folder.mkdir()
    picture = next(path for path in sorted(world.images.rglob("*")) if path.suffix in (".png", ".jpg"))
    for name in ("a.png", "b.png", "c.png", "d.png"):
        shutil.copy(picture, folder / name)
    asked = [("a.png", "What is at the top?"), ("b.png", "Where is the dog?"), ("a.png", "Is there a dog?"),
             ("a.png", "Where is the cat?\nAnswer the question using a single word or phrase."),
             ("b.png", "What is at the left?"), ("c.png", "Where is the cat?"), ("d.png", "Is it red?")]  # fmt: skip
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps({"image": image, "text": text}) + "\n" for image, text in asked))
    return file, folder


def test_pictures_with_two_questions_come_first(questions):
    file, folder = questions
    views = pick_views(file, folder, 5)
    assert [(path.name, text) for path, text in views] == [
        ("a.png", "What is at the top?"), ("a.png", "Where is the cat?"),
        ("b.png", "What is at the left?"), ("b.png", "Where is the dog?"),
    ]  # fmt: skip
    assert len(pick_views(file, folder, 1)) == 2
    file.write_text(json.dumps({"image": "c.png", "text": "Where is it?"}) + "\n")
    assert pick_views(file, folder, 3) == [(folder / "c.png", "Where is it?")]
    file.write_text(json.dumps({"image": "c.png", "text": "Is it red?"}) + "\n")
    with pytest.raises(InputError, match="asks nothing about a picture that begins with"):
        pick_views(file, folder, 3)


def test_likeness_of_maps():
    one = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    views = [("a", "?"), ("a", "!"), ("b", "?"), ("c", "?"), ("c", "!")]
    assert overlaps(views, Column("m", 0, [one, 3 * one, one, one, one.flip(0)], [])) == pytest.approx([1, 0])


def test_a_padded_map_lies_where_the_model_looked(tmp_path):
    """A picture twice as wide as high, padded to a square: of four rows of tokens the inner two are on it."""
    Image.new("RGB", (40, 20)).save(tmp_path / "wide.png")
    grid = torch.zeros(4, 4)
    grid[1, 3] = 1.0
    box = SeenBox(0, -10, 40, 30)
    figure = draw_maps([(tmp_path / "wide.png", "Where is it?")], [Column("m", 0, [grid], [box])])
    heat = figure.axes[1].images[1].get_array()
    assert heat.shape == (20, 40)
    row, column = divmod(int(heat.argmax()), 40)
    assert abs(row - 4.5) <= 1 and column >= 34, "the middle of the second row of tokens, at the right"
    assert heat[15:].max() < 0.3 and heat[:, :25].max() == 0


def test_layers_and_maps_of_a_model(questions, tuned_teacher, world):
    viewer = Viewer.load(str(tuned_teacher))
    padded = viewer.model.config.image_aspect_ratio == "pad"
    depth = viewer.model.config.num_hidden_layers
    assert choose_layers(viewer, "all") == list(range(depth)) and choose_layers(viewer, "-1") == [depth - 1]
    (best,) = choose_layers(viewer, "auto", world.data, world.images)
    assert 0 <= best < depth
    for wrong in (str(depth), "x"):
        with pytest.raises(InputError, match=f"--layers {wrong}: expected auto, all, or a layer from -{depth}"):
            choose_layers(viewer, wrong)
    with pytest.raises(InputError, match="give that"):
        choose_layers(viewer, "auto")
    views = pick_views(*questions, 1)
    first, second = look("t", viewer, views, [1, 0])
    assert (first.layer, second.layer) == (1, 0) and len(first.maps) == 2
    expected = viewer.maps(load_image(views[1][0]), views[1][1])
    width, height = load_image(views[1][0]).size
    side = max(width, height)
    assert first.boxes[1].bottom - first.boxes[1].top == pytest.approx(side if padded else height)
    assert torch.equal(first.maps[1], expected[1]) and torch.equal(second.maps[1], expected[0])


def test_a_report_of_every_layer(questions, tuned_teacher, tmp_path):
    file, folder = questions
    command = [sys.executable, "-m", "align_ti.analysis.attention_report", "--model", f"T={tuned_teacher}"]
    command += ["--questions", str(file), "--question-images", str(folder)]
    command += ["--layers", "all", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads((tmp_path / "out" / "attention.json").read_text())
    assert len(content["views"]) == 4 and all(0 < row["seeds"][0]["questions"] <= 1 + 1e-6 for row in content["models"])
    assert [row["seeds"][0]["layer"] for row in content["models"]] == list(range(len(content["models"])))
    assert (tmp_path / "out" / "attention.png").stat().st_size > 20_000
    assert "| T | 0 | - | " in (tmp_path / "out" / "attention.md").read_text()


def test_seeds_are_measured_on_more_pictures_than_are_drawn(questions, tuned_teacher, tmp_path):
    """The same checkpoint under every name: maps like the teacher's, and no spread over seeds."""
    file, folder = questions
    command = [sys.executable, "-m", "align_ti.analysis.attention_report", "--layers", "0", "--pictures", "1"]
    for name in ("teacher", "KD", "KD", "KD + IVA", "KD + IVA", "other"):
        command += ["--model", f"{name}={tuned_teacher}"]
    command += ["--questions", str(file), "--question-images", str(folder), "--out", str(tmp_path), "--name", "fig"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads((tmp_path / "fig.json").read_text())
    assert len(content["views"]) == 2 and content["measured"] == 4
    assert [len(row["seeds"]) for row in content["models"]] == [1, 2, 2, 1]
    text = (tmp_path / "fig.md").read_text()
    assert "| KD + IVA | 0, 0 | 1.000 ± 0.000 | " in text and "| other | 0 | 1.000 | " in text
    assert "Against KD, seed by seed:" in text and "| KD + IVA | 0.000 ± 0.000 | 0.000 ± 0.000 |" in text


def test_seeds_without_a_picture_that_is_asked_twice():
    seed = {"layer": 0, "questions": None, "like_first": 0.5}
    rows = [{"model": name, "seeds": [seed] * 2} for name in ("T", "a", "b")]
    rows[0]["seeds"] = [seed | {"like_first": None}]
    text = as_markdown("x", rows, 3, {})
    assert "| a | 0, 0 | 0.500 ± 0.000 | - |" in text and "| b | 0.000 ± 0.000 | - |" in text


def test_likeness_of_two_models():
    one, two = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])
    assert likeness(Column("a", 0, [one, one], []), Column("b", 0, [one, two], [])) == pytest.approx((1 + 0.96) / 2)
    assert likeness(Column("a", 0, [one], []), Column("b", 0, [one.T], [])) is None
