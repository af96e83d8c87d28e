"""IVA on a few visual tokens: over all draws, loss and gradients have the mean of the exact ones."""

import math

import pytest
import torch

from align_ti.candidates.noise import SampleNoise
from align_ti.losses import iva
from align_ti.losses.drawn_rows import drawn_weights, threshold
from tests.align_ti.training.whole_objective import TEACHER_HIDDEN, settings, total

WEIGHTS = {"teacher": 1, "student": 2, "uniform": "auto", "teacher_mean": 1}
"""Kinds of weights, and a layer for each."""


@pytest.fixture
def models(tiny_model):
    return tiny_model(layers=3), tiny_model(vocab=34, hidden=TEACHER_HIDDEN, layers=2, seed=1)


def samples(tail: float, number: int = 5, width: int = 40) -> torch.Tensor:
    """Weights ``[number, width]``, some of them 0, the last sample's all; the larger ``tail``, the fewer weigh much."""
    torch.manual_seed(3)
    weight = torch.exp(tail * torch.randn(number, width, dtype=torch.float64))
    weight[torch.rand(number, width) < 0.2] = 0.0
    weight[-1] = 0.0
    return weight / weight.sum(1, keepdim=True).clamp(min=1) * 0.3


def plain_draw(weight: list[float], rows: int, number: float) -> list[float]:
    """The same of one sample, by a walk along the line."""
    if sum(value > 0 for value in weight) <= rows:
        return weight
    certain: set[int] = set()
    while True:  # large ones are set aside until none is larger than its share of what is left
        rest = [k for k in range(len(weight)) if k not in certain]
        step = sum(weight[k] for k in rest) / (rows - len(certain))
        large = [k for k in rest if weight[k] > step]
        if not large:
            break
        certain.update(large)
    kept, place, mark = list(weight), 0.0, (1 - number) * step
    for k in rest:
        place += weight[k]
        kept[k] = 0.0
        if place >= mark:
            kept[k], mark = step, mark + step
    return kept


def all_draws(weight: torch.Tensor, rows: int) -> list[tuple[float, float]]:
    """Every draw of the samples with one number for all: a number for it, and its probability."""
    step = threshold(weight, rows)
    line = weight.masked_fill(weight >= step, 0.0).cumsum(1) / step.clamp(min=1e-300)
    edges = [0.0, *sorted((1 - line % 1).flatten().tolist()), 1.0]
    return [((a + b) / 2, b - a) for a, b in zip(edges, edges[1:], strict=False) if b > a + 1e-14]


@pytest.mark.parametrize("rows", [1, 2, 7, 39])
@pytest.mark.parametrize("tail", [0.0, 1.0, 3.0])
def test_draws_against_a_walk(tail, rows):
    weight = samples(tail)
    for number in (1e-9, 0.001, 0.3, 0.77, 0.999):  # at 0 a mark is where the line ends, and rounding decides
        drawn = drawn_weights(weight, rows, torch.full((5,), number, dtype=torch.float64))
        for mine, given in zip(drawn, weight, strict=True):
            assert mine.tolist() == pytest.approx(plain_draw(given.tolist(), rows, number), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("rows", [1, 2, 7, 39])
@pytest.mark.parametrize("tail", [0.0, 1.0, 3.0])
def test_every_weight_is_its_mean_over_all_draws(tail, rows):
    """And each draw keeps as many as asked for, the total, and whatever weighs more than the threshold."""
    weight = samples(tail)
    draws = all_draws(weight, rows)
    assert len(draws) > 10 or rows == 39
    mean = torch.zeros_like(weight)
    for number, probability in draws:
        drawn = drawn_weights(weight, rows, torch.full((5,), number, dtype=torch.float64))
        assert torch.equal((drawn > 0).sum(1), (weight > 0).sum(1).clamp(max=rows))
        torch.testing.assert_close(drawn.sum(1), weight.sum(1), rtol=1e-12, atol=0)
        certain = weight > threshold(weight, rows)
        assert torch.equal(drawn[certain], weight[certain])
        mean += probability * drawn
    torch.testing.assert_close(mean, weight, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_enough_rows_leave_every_bit(dtype):
    weight = samples(1.0).to(dtype)
    for rows in (int((weight > 0).sum(1).max()), 40, 10_000):
        drawn = drawn_weights(weight, rows, torch.rand(5, dtype=torch.float64))
        assert drawn.dtype == dtype and torch.equal(drawn, weight)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_mean_of_loss_and_gradients_is_the_exact_one(weights, models, make_batch, monkeypatch):
    """Over all draws of two rows a sample, with a text-only sample among them."""
    batch, options = make_batch(), {"iva_weights": weights, "iva_layer": WEIGHTS[weights]}
    tables = []
    monkeypatch.setattr(iva, "drawn_weights", lambda *given: (tables.append(given[0]), drawn_weights(*given))[1])
    drawn = settings(("iva",), iva_rows=2, **options)
    total(*models, batch, drawn)
    draws = all_draws(tables[0], 2)
    assert len(draws) > 3
    values, gradients, mean = [], None, 0.0
    for number, probability in draws:
        monkeypatch.setattr(
            SampleNoise, "one_each", lambda self, purpose, u=number: torch.full((4,), u, dtype=torch.float64)
        )
        terms, found = total(*models, batch, drawn)
        values.append(terms["iva"].item())
        mean += probability * values[-1]
        parts = [probability * gradient for gradient in found]
        gradients = parts if gradients is None else [a + b for a, b in zip(gradients, parts, strict=True)]
    exact, expected = total(*models, batch, settings(("iva",), **options))
    assert math.isclose(mean, exact["iva"].item(), rel_tol=1e-12) and max(values) - min(values) > 0.01 * mean
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_as_many_rows_as_there_are_give_every_bit_of_the_exact_loss(weights, packing, models, make_batch):
    options = {"iva_weights": weights, "iva_layer": WEIGHTS[weights], "packing": packing}
    losses = ("sft", "kd", "iva", "tpa")
    expected = total(*models, make_batch(), settings(losses, **options))
    for rows in (4, 729):
        found = total(*models, make_batch(), settings(losses, iva_rows=rows, **options))
        assert found[0] == expected[0] and all(map(torch.equal, found[1], expected[1]))


def test_draws_differ_between_samples_steps_and_seeds(models, make_batch):
    twins = make_batch(names=("image",) * 3)
    for value in vars(twins).values():
        value[:] = value[:1].clone()
    chosen = settings(("iva",), iva_rows=1)

    def value(row: int, step: int = 0, seed: int = 0) -> float:
        return total(*models, twins, chosen.replace(seed=seed), rows=[row], step=step)[0]["iva"].item()

    assert value(0) == value(0)
    for other in ({"row": 1}, {"step": 1}, {"seed": 1}):
        assert len({value(**{"row": 0, **other, name: at}) for name in other for at in range(3)}) > 1
