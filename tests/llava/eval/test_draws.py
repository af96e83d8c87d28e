"""Sampled tokens: against the distribution written out, and independent of the batch."""

import pytest
import torch

from llava.inference.draws import Draws

LOGITS = torch.tensor([2.0, 0.5, 1.0, -1.0, 1.5, -torch.inf])


def drawn(scores: torch.Tensor) -> list[int]:
    assert (scores == 0).sum(-1).eq(1).all() and torch.isinf(scores).sum(-1).eq(scores.shape[-1] - 1).all()
    return scores.argmax(-1).tolist()


def by_hand(temperature: float, top_p: float) -> dict[int, float]:
    """Probabilities of the tokens that remain: likeliest first, until their total reaches ``top_p``."""
    weights = {token: float(torch.exp(LOGITS[token] / temperature)) for token in range(len(LOGITS))}
    total, kept = sum(weights.values()), {}
    for token in sorted(weights, key=lambda token: -weights[token]):
        if sum(kept.values()) / total >= top_p:
            break
        kept[token] = weights[token]
    return {token: weight / sum(kept.values()) for token, weight in kept.items()}


@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.5, 1.0), (2.0, 0.8), (1.0, 0.5), (1.0, 1e-6)])
def test_frequencies_are_the_probabilities(temperature, top_p):
    rows = 20_000
    processor = Draws(temperature, top_p).processor([str(row) for row in range(rows)])
    tokens = drawn(processor(torch.empty(rows, 0), LOGITS.repeat(rows, 1)))
    expected = by_hand(temperature, top_p)
    assert set(tokens) == {token for token, share in expected.items() if share * rows > 20}
    for token, share in expected.items():
        assert tokens.count(token) / rows == pytest.approx(share, abs=4 * (share * (1 - share) / rows) ** 0.5 + 1e-9)


def test_a_question_draws_the_same_in_any_company():
    torch.manual_seed(0)
    steps = torch.randn(5, 3, 40)
    together, other_seed = Draws(1.0).processor(["a", "b", "c"]), Draws(1.0, seed=1).processor(["a", "b", "c"])
    alone = [Draws(1.0).processor([key]) for key in "abc"]
    batch = [drawn(together(torch.empty(3, 0), scores)) for scores in steps]
    single = [
        [drawn(own(torch.empty(1, 0), scores[row, None]))[0] for row, own in enumerate(alone)] for scores in steps
    ]
    assert batch == single
    assert batch != [drawn(other_seed(torch.empty(3, 0), scores)) for scores in steps]
    assert len({tuple(column) for column in zip(*batch, strict=True)}) == 3, "questions have their own numbers"


def test_low_precision_logits():
    scores = LOGITS.to(torch.bfloat16)[None]
    assert drawn(Draws(1e-3).processor(["a"])(torch.empty(1, 0), scores)) == [0]
