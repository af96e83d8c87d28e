"""Loss curves: what is read from a run, the running mean, and the picture's lines."""

import json

import pytest
from matplotlib.axes import Axes
from PIL import Image

from align_ti.studies.loss_curves import plot_losses, read_log, smooth
from llava.errors import InputError


def write_run(folder, entries):
    folder.mkdir()
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": entries}))
    return folder


def test_running_mean_by_hand():
    assert smooth([4.0, 2.0, 0.0, 6.0], 2) == [4.0, 3.0, 1.0, 3.0]
    assert smooth([4.0, 2.0, 6.0], 10) == [4.0, 3.0, 4.0]


def test_one_panel_a_term_and_one_line_a_run(tmp_path, monkeypatch):
    plain = write_run(tmp_path / "plain", [{"step": 5, "sft": 2.0}, {"step": 10, "sft": 1.0}, {"train_runtime": 3}])
    both = write_run(tmp_path / "both", [{"step": 5, "sft": 3.0, "kd": 1.0}, {"step": 10, "sft": 2.0, "kd": 0.5}])
    drawn = []
    plot = Axes.plot

    def watch(axes, steps, values, **look):
        drawn.append((axes.get_subplotspec().num1, look["label"], list(steps), list(values)))
        return plot(axes, steps, values, **look)

    monkeypatch.setattr(Axes, "plot", watch)
    file = tmp_path / "losses.png"
    plot_losses({"SFT": plain, "KD": both}, file, window=1)
    assert drawn == [
        (0, "SFT", [5, 10], [2.0, 1.0]), (0, "KD", [5, 10], [3.0, 2.0]), (1, "KD", [5, 10], [1.0, 0.5]),
    ]  # fmt: skip
    width, height = Image.open(file).size
    assert width > 2 * height, "two panels side by side"


def test_refusals(tmp_path):
    with pytest.raises(InputError, match="is not a finished run: it has no trainer_state.json"):
        read_log(tmp_path)
    silent = write_run(tmp_path / "silent", [{"train_runtime": 3.0}])
    with pytest.raises(InputError, match="none of the runs logged a loss; --logging_steps"):
        plot_losses({"silent": silent}, tmp_path / "x.png")
