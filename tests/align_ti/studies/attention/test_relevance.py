"""IRS over pairs against all pairs, its spread against theory, and the command from checkpoint to files."""

import itertools
import json
import sys

import pytest
import torch
from torch.nn.functional import cosine_similarity

from align_ti.attention.interface import use_align_ti_attention
from align_ti.irs import instruction_relevance_scores
from align_ti.studies.attention import relevance
from align_ti.studies.attention.relevance import convergence, irs_of_all_pairs, summarise
from align_ti.studies.common.checkpoints import data_batches
from llava.data.annotations.table import open_annotations
from llava.errors import InputError


def random_vectors(inputs=9):
    torch.manual_seed(0)
    return torch.rand(inputs, 3, 5, dtype=torch.float64) ** torch.tensor([0.1, 4.0, 1.0])[:, None]


def test_all_pairs_one_by_one():
    vectors = random_vectors()
    similar = [cosine_similarity(one, two, dim=-1) for one, two in itertools.combinations(vectors, 2)]
    torch.testing.assert_close(irs_of_all_pairs(vectors), 1 - torch.stack(similar).mean(0))
    alike = vectors[:1].expand(4, 3, 5)
    torch.testing.assert_close(irs_of_all_pairs(alike), torch.zeros(3).double(), atol=1e-12, rtol=0)


def test_draws_scatter_around_all_pairs_as_their_number_says():
    vectors = random_vectors()
    scores = convergence(vectors, (10, 90), draws=300)
    assert scores.shape == (2, 300, 3)
    few, many = scores.std(1)
    similar = torch.stack([cosine_similarity(one, two, dim=-1) for one, two in itertools.combinations(vectors, 2)])
    torch.testing.assert_close(few, similar.std(0, correction=0) / 10**0.5, rtol=0.15, atol=0)
    torch.testing.assert_close(few / many, torch.full((3,), 3.0).double(), rtol=0.2, atol=0)
    assert ((scores.mean(1) - irs_of_all_pairs(vectors)).abs() < 4 * scores.std(1) / 300**0.5).all()
    assert torch.equal(scores, convergence(vectors, (10, 90), draws=300))
    assert not torch.equal(scores, convergence(vectors, (10, 90), draws=300, seed=1))
    with pytest.raises(InputError, match="--draws is 0"):
        convergence(vectors, draws=0)


def test_summary():
    content = summarise(random_vectors(), [1, 200], draws=8, seed=0)
    assert content["layer"] == 1 and content["inputs"] == 9
    few, many = content["draws"]
    assert (few["pairs"], many["pairs"]) == (1, 200) and few["same_layer"] < many["same_layer"] == 1.0
    for draw in (few, many):
        for low, mean, high in zip(draw["low"], draw["mean"], draw["high"], strict=True):
            assert low < mean < high
    assert max(many["high"]) - content["all_pairs"][1] < 0.1


def run_entry(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["relevance", *map(str, flags)])
    relevance.main()


def test_the_command(world, tuned_teacher, tmp_path, monkeypatch):
    flags = ["--model", f"T={tuned_teacher}", "--data", world.data, "--image-folder", world.images, "--device", "cpu"]
    run_entry(monkeypatch, *flags, "--pairs", 40, 4, "--draws", 3, "--inputs", 12, "--out", tmp_path, "--name", "f")
    assert {path.name for path in tmp_path.iterdir()} == {"f.json", "f.md", "f.png", "f.pdf"}
    content = json.loads((tmp_path / "f.json").read_text())["models"]["T"]
    assert content["inputs"] == 12 and [draw["pairs"] for draw in content["draws"]] == [4, 40]
    # The same inputs through the training's own function, with so many pairs that all occur.
    loaded = relevance.load(str(tuned_teacher), "cpu")
    use_align_ti_attention(loaded.model)
    read = data_batches(loaded.model, loaded.tokenizer, "qwen", open_annotations(str(world.data)), world.images, 5, 0)
    plain = instruction_relevance_scores(loaded.model, read, pairs=20_000, max_inputs=12, progress=False)
    assert content["all_pairs"] == pytest.approx(plain.scores, rel=0.05) and min(plain.scores) > 0
    assert f"| T | 40 | {content['layer']} |" in (tmp_path / "f.md").read_text()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--pairs", "0", "10"], "at least 2 inputs, 1 pair and 1 draw"),
        (["--inputs", "1"], "--inputs 1"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--model", "=path"], "expected NAME=PATH"),
    ],
)
def test_refusals(flags, message, world, tuned_teacher, tmp_path, monkeypatch):
    usual = ["--model", f"T={tuned_teacher}", "--data", world.data, "--image-folder", world.images, "--device", "cpu"]
    with pytest.raises(InputError, match=message):
        run_entry(monkeypatch, *usual, "--out", tmp_path, *flags)
    assert not list(tmp_path.iterdir())
