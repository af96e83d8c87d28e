"""The figures of padding and balance: by hand on a few samples, and of a data set and a generated mix."""

import json
import sys

import numpy as np
import pytest

from llava.data import padding
from llava.data.padding import MIX, compare, fixed_size, generated_mix, measure
from llava.data.sampler import ShuffleSampler
from llava.errors import InputError


def test_figures_by_hand():
    """One step of two micro-batches on two ranks: 4 + 2 and 3; 1 + 1 and 5."""
    lengths = np.array([4, 2, 3, 1, 1, 5])
    steps = [[[[0, 1], [2]], [[3, 4], [5]]]]
    padded = measure("x", iter(steps), lengths, True)
    assert padded.padding == pytest.approx(2 / 18) and padded.micro_batches == 2 and padded.fullest == 8
    assert padded.at_once == pytest.approx((8 / 5.5 + 5 / 3.5) / 2) and padded.by_step == pytest.approx(10 / 9)
    packed = measure("x", iter(steps), lengths, False)
    assert packed.padding == 0 and packed.fullest == 6 and packed.by_step == pytest.approx(1)


def test_fixed_size_is_the_trainer_s_order():
    """Batches of the sampler, of which the ranks take the next in turn."""
    order = list(ShuffleSampler(30, 3))
    first, second = fixed_size(ShuffleSampler(30, 3), 2, 3, 2)
    assert first == [[order[0:2], order[2:4], order[4:6]], [order[6:8], order[8:10], order[10:12]]]
    assert second[1][2] == order[22:24]


def test_filled_micro_batches_have_little_padding_and_even_ranks():
    lengths, signed = generated_mix(6000, 729, 2048)
    assert ((lengths > 729) | (signed < 0)).all() and lengths.max() <= 2048
    share = MIX["ShareGPT4V 665k: text only"].thousands / sum(source.thousands for source in MIX.values())
    assert (signed < 0).mean() == pytest.approx(share, rel=0.3)
    found = {row.order: row for row in compare(lengths, signed, 8, 2, 8, 8192)}
    fixed, padded, packed = (
        found[f"random, {name}"] for name in ("8 samples, padded", "8192 tokens, padded", "8192 tokens, packed")
    )
    assert fixed.padding > 0.15 and padded.padding < 0.04 and packed.padding == 0
    assert fixed.at_once > 1.2 and max(packed.at_once, padded.at_once) < 1.05
    assert max(packed.fullest, padded.fullest) <= 8192 < fixed.fullest


def test_the_command(world, tmp_path, monkeypatch, capsys):
    def command(*flags):
        monkeypatch.setattr(sys, "argv", ["padding", "--batch", "2", "--ranks", "2", *flags])
        padding.main()

    file = tmp_path / "figures.json"
    data = ("--data_path", str(world.data), "--model_name_or_path", str(world.student_lm), "--visual_tokens", "4")
    command(*data, "--max_tokens_per_batch", "150", "--json", str(file))
    rows = json.loads(file.read_text())
    assert len(rows) == 8 and rows[0]["padding"] > 0 and max(row["fullest"] for row in rows[2:4]) <= 150
    assert "24 samples" in capsys.readouterr().out
    with pytest.raises(InputError, match="give --data_path and --model_name_or_path, or --generated"):
        command()
    with pytest.raises(InputError, match="an optimizer step takes 400"):
        command(*data, "--batch", "100")
