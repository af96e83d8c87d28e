"""The loader's figures: parts and whole agree, and the share of a step is arithmetic on them."""

import json
import sys

import pytest

from llava.data import throughput
from llava.errors import InputError


def run(world, monkeypatch, *flags):
    start = [
        "throughput", "--data_path", str(world.data), "--image_folder", str(world.images), "--model_name_or_path",
        str(world.student_lm), "--vision_tower", str(world.tower), *flags,
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", start)
    throughput.main()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_figures_of_real_samples(world, tmp_path, monkeypatch, capsys, workers):
    file = tmp_path / "figures.json"
    for _ in range(5):  # both are times, and other work may slow one of them
        run(world, monkeypatch, "--batch", "4", "--workers", workers, "--step_seconds", "2", "--json", str(file))
        found = throughput.Throughput(**json.loads(file.read_text()))
        whole_by_parts = found.samples_per_second * found.one_process
        if workers != "0" or 0.3 < whole_by_parts < 1.5:
            break
    assert found.samples == 24 and found.workers == int(workers)
    assert min(found.read, found.tokenize, found.decode, found.preprocess) > 0
    if workers == "0":  # the loader adds batching and little else to what its parts take
        assert 0.3 < whole_by_parts < 1.5
    out = capsys.readouterr().out
    assert f"{found.samples_per_second:.0f} samples/s with {workers} workers" in out and "keep up" in out


def test_workers_needed():
    """8 samples of 30 ms in a step of 0.1 s are the work of 2.4 processes."""
    found = throughput.Throughput(100, 0, 30.0, 0.001, 0.004, 0.015, 0.010)
    assert found.one_process == pytest.approx(0.030)
    assert found.workers_needed(8, 0.1) == 3 and found.workers_needed(8, 10) == 1
    assert "loading takes 13.3% of it" in throughput.report(found, 8, 2.0)


def test_too_few_samples(world, monkeypatch):
    with pytest.raises(InputError, match="--samples is 4, expected more than --batch .8."):
        run(world, monkeypatch, "--samples", "4")
