"""The layer at which maps open: from a real run's folder, and from records of every kind."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from align_ti.web import elements
from align_ti.web.opening import IvaRun, Opening, equal_depth, openings


def test_a_real_run_names_its_teachers_layer(distilled, checkpoints, tmp_path):
    layer = json.loads((distilled / "run_config.json").read_text())["iva"]["layer"]
    teacher, run = str(checkpoints["teacher"]), str(distilled)
    marked = [Opening(layer, "l*"), Opening(equal_depth(layer, 3, 2), "depth")]
    assert openings([(teacher, 3), (run, 2)]) == marked
    assert openings([(run, 2)]) == marked[1:]  # the teacher's folder tells its number of layers
    moved = shutil.copytree(teacher, tmp_path / "renamed")
    assert openings([(str(moved), 3), (run, 2)]) == marked, "the same weights in another place"
    other = shutil.copytree(teacher, tmp_path / "teacher")
    weights = other / "model.safetensors"
    save_file({name: tensor * 1.001 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    kinds = [opening.kind for opening in openings([(str(other), 3), (run, 2)])]
    assert kinds == ["", "depth"], "other weights under the same name"
    checkpoint = tmp_path / "run/checkpoint-1"
    checkpoint.mkdir(parents=True)
    for name in ("run_config.json", "irs.json"):
        shutil.copy(distilled / name, checkpoint.parent)
    assert openings([(str(checkpoint), 2)]) == marked[1:]
    record = json.loads((checkpoint.parent / "run_config.json").read_text())
    record["distill"]["teacher_path"] = str(tmp_path / "gone")
    (checkpoint.parent / "run_config.json").write_text(json.dumps(record))
    assert openings([(str(checkpoint), 2)]) == marked[1:], "as many layers as IRS scores"


@pytest.fixture
def record(tmp_path):
    """``record(layer, "teacher")``: the folder of a run whose teacher is ``somebody/big``."""

    def write(layer: int | None, weights: str, name: str = "run") -> str:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        distill = {"teacher_path": "somebody/big", "iva_weights": weights, "iva_layer": "75%"}
        content = {"distill": distill, "iva": {"layer": layer}, "contents": {"teacher_path": "somebody/big"}}
        (folder / "run_config.json").write_text(json.dumps(content))
        return str(folder)

    return write


TEACHER = ("somebody/big", 28)


@pytest.mark.parametrize(
    ("layer", "weights", "expected"),
    [
        (21, "teacher", [Opening(21, "l*"), Opening(18, "depth")]),
        (21, "teacher_mean", [Opening(21, "l*"), Opening(18, "depth")]),
        (23, "student", [Opening(27, "depth"), Opening(23, "l*")]),
        (None, "uniform", [Opening(14), Opening(12)]),
        (None, "teacher", [Opening(14), Opening(12)]),  # a run without IVA
        (28, "teacher", [Opening(14), Opening(12)]),  # no such layer
    ],
)
def test_whose_layer_it_is(record, layer, weights, expected):
    assert openings([TEACHER, (record(layer, weights), 24)]) == expected


def test_nothing_is_said_of_models_that_no_run_connects(record):
    run = record(21, "teacher")
    assert openings([("somebody/else", 28), (run, 24)]) == [Opening(14), Opening(12)], "how deep is not known"
    assert openings([(run, 24)]) == [Opening(12)]
    assert openings([(None, 1), ("a/b", 2)]) == [Opening(0), Opening(1)]
    assert openings([(record(5, "student", "other"), 24), ("somebody/else", 12)]) == [Opening(5, "l*"), Opening(2)], (
        "sliders at equal depth, but l* is said of its own model alone"
    )


def test_damaged_records_are_as_good_as_none(tmp_path):
    for content in ("", "[]", "{}", '{"iva": {"layer": "3"}, "distill": 7}', '{"iva": {"layer": 3}, "distill": {}}'):
        (tmp_path / "run_config.json").write_text(content)
        assert openings([(str(tmp_path), 24), ("somebody/big", 28)]) == [Opening(12), Opening(14)]
    assert IvaRun.of(str(Path("not there"))) is None


def test_equal_depth():
    assert [equal_depth(layer, 28, 24) for layer in (0, 21, 27)] == [0, 18, 23]
    assert all(equal_depth(layer, 24, 24) == layer for layer in range(24))
    assert equal_depth(0, 1, 24) == 12


def test_labels_say_where_l_star_is():
    assert elements.layer_label(21, 28, Opening(21, "l*")) == "Layer 21 of 28 (l*: IVA's layer)"
    assert elements.layer_label(3, 28, Opening(21, "l*")) == "Layer 3 of 28 (l* is 21)"
    assert elements.layer_label(18, 24, Opening(18, "depth")) == "Layer 18 of 24 (same depth as l*)"
    assert elements.layer_label(3, 24, Opening(18, "depth")) == "Layer 3 of 24 (same depth as l*: 18)"
    assert elements.layer_label(14, 28, Opening(14)) == "Layer 14 of 28"
