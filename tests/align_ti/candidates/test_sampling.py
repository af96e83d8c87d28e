"""Draws: the right tokens, in the right proportions, from the right rows."""

import pytest
import torch

from align_ti.candidates import sampling
from align_ti.candidates.sampling import draw, draw_candidates
from llava.errors import InputError

DRAWS = 40_000


def chi_square(counts: torch.Tensor, probabilities: torch.Tensor) -> float:
    """Statistic over the degrees of freedom's spread: standard normal for large degrees of freedom."""
    kept = probabilities > 0
    assert counts[~kept].eq(0).all()
    expected = probabilities[kept] * counts.sum()
    statistic = ((counts[kept] - expected) ** 2 / expected).sum()
    freedom = kept.sum() - 1
    return float((statistic - freedom) / (2 * freedom) ** 0.5)


def nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """By definition, token by token."""
    kept = torch.zeros_like(probabilities)
    mass = 0.0
    for token in sorted(range(len(probabilities)), key=lambda t: -float(probabilities[t])):
        kept[token] = probabilities[token]
        mass += float(probabilities[token])
        if mass >= top_p:
            break
    return kept / kept.sum()


@pytest.mark.parametrize("method, top_p", [("multinomial", 0.3), ("nucleus", 1.0), ("nucleus", 0.9), ("nucleus", 0.5)])
@pytest.mark.parametrize("likely", [1024, 4])
def test_proportions(method, top_p, likely, monkeypatch):
    monkeypatch.setattr(sampling, "LIKELY_TOKENS", likely)  # 4: falls back to the whole vocabulary
    torch.manual_seed(0)
    logits = torch.randn(3, 40)
    generator = torch.Generator().manual_seed(1)
    drawn = draw(logits, DRAWS, method=method, top_p=top_p, temperature=0.8, generator=generator)
    assert drawn.shape == (3, DRAWS) and drawn.dtype == torch.long
    for row in range(3):
        probabilities = (logits[row].double() / 0.8).softmax(-1)
        if method == "nucleus":
            probabilities = nucleus(probabilities, top_p)
        assert abs(chi_square(torch.bincount(drawn[row], minlength=40).double(), probabilities)) < 4
    # Neighbouring draws are independent (so with replacement): a contingency table of their pairs.
    pairs = torch.bincount(drawn[0, ::2] * 40 + drawn[0, 1::2], minlength=1600).double().view(40, 40)
    frequent = (pairs.sum(1) > 0.03 * pairs.sum()).nonzero().flatten()
    expected = (pairs.sum(1)[:, None] * pairs.sum(0) / pairs.sum())[frequent][:, frequent]
    statistic = ((pairs[frequent][:, frequent] - expected) ** 2 / expected).sum()
    cells = len(frequent)
    assert cells >= 2
    assert (cells - 1) ** 2 - 6 * cells < statistic < cells**2 + 6 * cells


def test_a_nucleus_holds_at_least_one_token_and_stops_at_p():
    probabilities = torch.tensor([[0.6, 0.3, 0.1]])
    assert draw(probabilities.log(), 500, top_p=0.5).unique().tolist() == [0]
    assert draw(probabilities.log(), 500, top_p=0.7).unique().tolist() == [0, 1]
    assert draw(probabilities.log(), 500, top_p=0.95).unique().tolist() == [0, 1, 2]


def test_greedy_takes_the_likeliest():
    torch.manual_seed(0)
    logits = torch.randn(5, 30)
    assert torch.equal(draw(logits, 4, method="greedy"), logits.argsort(-1, descending=True)[:, :4])


def test_noise_decides_the_draw():
    logits = torch.tensor([[0.2, 0.0, 0.5, 0.3]]).log()
    noise = torch.tensor([[0.0, 0.19, 0.21, 0.69, 0.71, 1 - 2**-53]], dtype=torch.float64)
    assert draw(logits, 6, method="multinomial", noise=noise).tolist() == [[0, 0, 2, 2, 3, 3]]
    assert draw(logits, 6, method="nucleus", top_p=0.75, noise=noise).tolist() == [[2, 2, 2, 3, 3, 3]]
    assert draw(torch.tensor([[0.7, 0.3, 0.0]]).log(), 1, method="multinomial", noise=noise[:, -1:]).item() == 1


@pytest.mark.parametrize("method", ["nucleus", "multinomial", "greedy"])
def test_rows_in_chunks_equal_rows_at_once(method):
    torch.manual_seed(0)
    hidden, head = torch.randn(11, 6), torch.randn(50, 6)
    noise = torch.rand(11, 4, dtype=torch.float64)
    at_once = draw((hidden @ head.T)[:, :45], 4, method=method, noise=noise)
    chunked = draw_candidates(hidden, head, 4, method=method, noise=noise, vocabulary=45, chunk_rows=3)
    assert torch.equal(chunked, at_once)
    first = draw_candidates(hidden, head, 4, method=method, generator=torch.Generator().manual_seed(3))
    again = draw_candidates(hidden, head, 4, method=method, generator=torch.Generator().manual_seed(3), chunk_rows=2)
    assert torch.equal(first, again)


def test_tokens_only_one_model_has_are_never_drawn():
    hidden, head = torch.ones(200, 1), torch.arange(10.0)[:, None]  # the last tokens are the likeliest
    assert draw_candidates(hidden, head, 4, vocabulary=8).max() == 7
    assert draw_candidates(hidden, head, 4).max() == 9


def test_no_rows():
    assert draw_candidates(torch.empty(0, 3), torch.randn(9, 3), 4).shape == (0, 4)


@pytest.mark.parametrize(
    "d, options, reason",
    [
        (0, {}, "at least 1, got d = 0"),
        (40, {"method": "greedy"}, "d = 40 from 9"),
        (2, {"method": "beam"}, "expected one of nucleus"),
        (2, {"top_p": 0.0}, "top_p"),
        (2, {"top_p": 1.1}, "top_p"),
        (2, {"temperature": 0.0}, "temperature"),
        (2, {"noise": torch.zeros(5, 3)}, "noise has shape"),
    ],
)
def test_wrong_input(d, options, reason):
    with pytest.raises(InputError, match=reason):
        draw_candidates(torch.randn(5, 3), torch.randn(9, 3), d, **options)
