"""The maps' report on real checkpoints: its files, its layers, its measure of likeness, and what it refuses."""

import json
import shutil
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from align_ti.attention.overlay import SeenBox
from align_ti.studies.attention.pictures import Column, Viewer, draw_maps
from align_ti.studies.attention.report import (
    as_markdown,
    choose_layers,
    corresponding_layer,
    layer_of,
    likeness,
    maps_by_layer,
    overlaps,
    pick_views,
)
from llava.data.images import load_image
from llava.errors import InputError
from llava.train import train as supervised


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
    with pytest.raises(InputError, match="has no question about an image that begins with"):
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
    with pytest.raises(InputError, match="give --data"):
        choose_layers(viewer, "auto")
    views = pick_views(*questions, 1)
    first, second = maps_by_layer("t", viewer, views, [1, 0])
    assert (first.layer, second.layer) == (1, 0) and len(first.maps) == 2
    expected = viewer.maps(load_image(views[1][0]), views[1][1])
    width, height = load_image(views[1][0]).size
    side = max(width, height)
    assert first.boxes[1].bottom - first.boxes[1].top == pytest.approx(side if padded else height)
    assert torch.equal(first.maps[1], expected[1]) and torch.equal(second.maps[1], expected[0])


def test_a_report_of_every_layer(questions, tuned_teacher, tmp_path):
    file, folder = questions
    command = [sys.executable, "-m", "align_ti.studies.attention.report", "--model", f"T={tuned_teacher}"]
    command += ["--questions", str(file), "--question-images", str(folder)]
    command += ["--layers", "all", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads((tmp_path / "out" / "attention.json").read_text())
    assert len(content["views"]) == 4 and all(0 < row["seeds"][0]["questions"] <= 1 + 1e-6 for row in content["models"])
    assert [row["seeds"][0]["layer"] for row in content["models"]] == list(range(len(content["models"])))
    assert (tmp_path / "out" / "attention.png").stat().st_size > 20_000
    assert "| T | 0 of 0 to 2 | - | " in (tmp_path / "out" / "attention.md").read_text()


def test_seeds_are_measured_on_more_pictures_than_are_drawn(questions, tuned_teacher, tmp_path):
    """The same checkpoint under every name: maps like the teacher's, and no spread over seeds."""
    file, folder = questions
    command = [sys.executable, "-m", "align_ti.studies.attention.report", "--layers", "0", "--pictures", "1"]
    for name in ("teacher", "KD", "KD", "KD + IVA", "KD + IVA", "other"):
        command += ["--model", f"{name}={tuned_teacher}"]
    command += ["--questions", str(file), "--question-images", str(folder), "--out", str(tmp_path), "--name", "fig"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads((tmp_path / "fig.json").read_text())
    assert len(content["views"]) == 2 and content["measured"] == 4
    assert [len(row["seeds"]) for row in content["models"]] == [1, 2, 2, 1]
    text = (tmp_path / "fig.md").read_text()
    assert "| KD + IVA | 0 of 0 to 2 | 1.000 ± 0.000 | " in text and "| other | 0 of 0 to 2 | 1.000 | " in text
    assert (
        "Relative to KD, paired by seed, all in layer 0 of 0 to 2:" in text
        and "| KD + IVA | 0.000 ± 0.000 | 0.000 ± 0.000 |" in text
    )


def with_layers_in_order(model: Path, order: tuple[int, ...], folder: Path) -> Path:
    """A copy of a checkpoint whose layers stand in another order."""
    shutil.copytree(model, folder)
    file = folder / "model.safetensors"
    weights = load_file(file)
    renamed = {}
    for name, weight in weights.items():
        if name.startswith("model.layers."):
            number, rest = name.removeprefix("model.layers.").split(".", 1)
            name = f"model.layers.{order.index(int(number))}.{rest}"
        renamed[name] = weight
    save_file(renamed, file, metadata={"format": "pt"})
    return folder


def own_layer(model: Path, world) -> int:
    (layer,) = choose_layers(Viewer.load(str(model)), "auto", world.data, world.images)
    return layer


@pytest.fixture(scope="module")
def short_student(world, tmp_path_factory) -> Path:
    """A student of two layers; the teacher has three."""
    folder = tmp_path_factory.mktemp("short") / "student"
    flags = [
        "--model_name_or_path", str(world.student_lm), "--vision_tower", str(world.tower), "--data_path",
        str(world.data), "--image_folder", str(world.images), "--output_dir", str(folder), "--version", "qwen",
        "--mm_projector_type", "mlp2x_gelu", "--max_steps", "1", "--use_cpu", "True", "--report_to", "none",
        "--save_strategy", "no", "--disable_tqdm", "True", "--dataloader_pin_memory", "False",
    ]  # fmt: skip
    patch = pytest.MonkeyPatch()
    patch.setattr("sys.argv", ["train", *flags])
    supervised.main()
    patch.undo()
    return folder


def test_all_models_are_measured_in_the_layer_of_the_first(questions, tuned_teacher, short_student, world, tmp_path):
    """Whatever the layer of their own highest IRS is: two seeds that differ in it are of the teacher's layer."""
    teachers = own_layer(tuned_teacher, world)
    copies = (
        with_layers_in_order(tuned_teacher, order, tmp_path / "-".join(map(str, order)))
        for order in permutations(range(3))
    )
    other = next(copy for copy in copies if own_layer(copy, world) != teachers)
    file, folder = questions
    command = [sys.executable, "-m", "align_ti.studies.attention.report", "--name", "fig", "--out", str(tmp_path)]
    for name, model in (("teacher", tuned_teacher), ("KD", tuned_teacher), ("KD", other), ("KD + IVA", other),
                        ("KD + IVA", tuned_teacher), ("short", short_student), ("short", short_student)):  # fmt: skip
        command += ["--model", f"{name}={model}"]
    command += ["--questions", str(file), "--question-images", str(folder)]
    command += ["--data", str(world.data), "--image-folder", str(world.images)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {row["model"]: row for row in json.loads((tmp_path / "fig.json").read_text())["models"]}
    assert [[seed["layer"] for seed in rows[name]["seeds"]] for name in ("teacher", "KD", "KD + IVA")] == [
        [teachers], [teachers] * 2, [teachers] * 2
    ]  # fmt: skip
    by_hand = [maps_by_layer("", Viewer.load(str(model)), pick_views(file, folder, 100), [teachers])[0]
               for model in (tuned_teacher, other)]  # fmt: skip
    expected = [1.0, likeness(by_hand[1], by_hand[0])]
    assert [seed["like_first"] for seed in rows["KD"]["seeds"]] == pytest.approx(expected, abs=1e-6)
    short = corresponding_layer(teachers, 3, 2)
    text = (tmp_path / "fig.md").read_text()
    assert f"| KD + IVA | {teachers} of 0 to 2 | " in text and f"| short | {short} of 0 to 1 | " in text
    against = text.split(f"Relative to KD, paired by seed, all in layer {teachers} of 0 to 2:")[1]
    assert "| KD + IVA | 0.000 ± " in against and "| short |" not in against
    assert f"Not compared with KD (layer {teachers} of 0 to 2), which was measured in another layer: " in against
    assert f": short (layer {short} of 0 to 1)." in against
    done = subprocess.run([*command, "--model", f"KD={short_student}"], capture_output=True, text=True, check=False)
    assert (
        done.returncode == 2
        and "'KD' have different numbers of layers ([3, 3, 2]); give them different names" in done.stderr
    )


def test_layers_at_the_same_share_of_the_depth():
    """As `--iva_layer 75%` counts: 21 of 28, 18 of 24; the last layer stays within a shorter model."""
    assert [corresponding_layer(21, 28, depth) for depth in (28, 24, 36)] == [21, 18, 27]
    assert [corresponding_layer(layer, 4, 4) for layer in range(4)] == list(range(4))
    assert corresponding_layer(27, 28, 24) == 23 and corresponding_layer(0, 28, 24) == 0


def test_rows_of_other_layers_are_told_apart():
    """A row is of one layer; a difference is taken between rows of the same layer alone."""
    rows = [
        {"model": name, "depth": 4, "seeds": [{"layer": layer, "questions": 0.5, "like_first": like}] * seeds}
        for name, layer, like, seeds in (("T", 1, None, 1), ("KD", 1, 0.5, 2), ("IVA", 1, 0.75, 2), ("far", 2, 0.9, 2))
    ]
    text = as_markdown("x", rows, 3, {})
    assert "| IVA | 0.250 ± 0.000 | 0.000 ± 0.000 |" in text and "| far | 0.4" not in text
    assert (
        "Not compared with KD (layer 1 of 0 to 3), which was measured in another layer: far (layer 2 of 0 to 3)."
        in text
    )
    mixed = rows[1] | {"seeds": [rows[1]["seeds"][0], rows[3]["seeds"][0]]}
    with pytest.raises(InputError, match=r"seeds of 'KD' were measured in different layers \(1, 2\)"):
        layer_of(mixed)
    with pytest.raises(InputError, match="different layers"):
        as_markdown("x", [rows[0], mixed], 3, {})


def test_seeds_without_a_picture_that_is_asked_twice():
    seed = {"layer": 0, "questions": None, "like_first": 0.5}
    rows = [{"model": name, "depth": 1, "seeds": [seed] * 2} for name in ("T", "a", "b")]
    rows[0]["seeds"] = [seed | {"like_first": None}]
    text = as_markdown("x", rows, 3, {})
    assert "| a | 0 of 0 to 0 | 0.500 ± 0.000 | - |" in text and "| b | 0.000 ± 0.000 | - |" in text


def test_likeness_of_two_models():
    one, two = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])
    assert likeness(Column("a", 0, [one, one], []), Column("b", 0, [one, two], [])) == pytest.approx((1 + 0.96) / 2)
    assert likeness(Column("a", 0, [one], []), Column("b", 0, [one.T], [])) is None
