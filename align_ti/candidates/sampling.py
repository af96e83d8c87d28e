"""Drawing candidate tokens from a model's next-token distributions (the paper, Eq. 7).

Random rules turn uniform numbers into tokens by inverting the cumulative distribution, so the caller who supplies the
numbers decides what the draws depend on. To add a rule, write a function from probabilities ``[rows, V]`` to the mass
it draws from, and add it to ``draw``.
"""

import torch
from torch import Tensor

from align_ti.numerics import default_chunk_rows, exact_dtype
from llava.errors import InputError

METHODS = ("nucleus", "multinomial", "greedy")

DEFAULT_TOP_P = 0.95
"""The paper uses nucleus sampling and gives no p; 0.95 keeps nearly all of the mass that Eq. 7 draws from and never
spends a candidate on the far tail."""

LIKELY_TOKENS = 64
"""The nucleus is searched among this many most likely tokens first, then among 16 times as many, and so on."""


@torch.no_grad()
def draw_candidates(
    hidden: Tensor,
    weight: Tensor,
    d: int,
    *,
    method: str = "nucleus",
    top_p: float = DEFAULT_TOP_P,
    temperature: float = 1.0,
    vocabulary: int | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    chunk_rows: int | None = None,
) -> Tensor:
    """Draw ``d`` tokens per row from ``softmax(hidden weight^T)``, a few rows of logits at a time.

    Args:
        hidden: ``[L, D]`` last hidden states at the predicting positions.
        weight: ``[V, D]``, the head without bias.
        d: Draws per row, at least 1.
        method, top_p, temperature, noise, generator: See ``draw``.
        vocabulary: Draw only among this many first tokens: the vocabulary rows that both models have.
        chunk_rows: Rows of logits at a time; default as in ``linear_divergence``.

    Returns:
        Token ids, long ``[L, d]``.

    Raises:
        InputError: See ``draw``.
    """
    _check(d, method, top_p, temperature)
    weight = weight.detach()[:vocabulary]
    rows = chunk_rows or default_chunk_rows(weight.shape[0], hidden.device)
    noise = _noise(noise, len(hidden), d, hidden.device, generator)
    drawn = [torch.empty(0, d, dtype=torch.long, device=hidden.device)]
    for block, numbers in zip(hidden.detach().split(rows), noise.split(rows), strict=True):
        logits = block.to(weight.dtype) @ weight.T
        drawn.append(draw(logits, d, method=method, top_p=top_p, temperature=temperature, noise=numbers))
    return torch.cat(drawn)


@torch.no_grad()
def draw(
    logits: Tensor,
    d: int,
    *,
    method: str = "nucleus",
    top_p: float = DEFAULT_TOP_P,
    temperature: float = 1.0,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw ``d`` tokens per row from logits ``[rows, V]`` -> long ``[rows, d]``.

    Args:
        logits: ``[rows, V]``.
        d: Draws per row, at least 1.
        method: ``nucleus``: independent draws, with replacement, from the smallest set of most likely
            tokens with at least ``top_p`` of the mass, renormalised. ``multinomial``: the same from the
            whole distribution. ``greedy``: the ``d`` most likely tokens, without randomness.
        top_p: In (0, 1]; with 1, ``nucleus`` draws from the whole distribution too.
        temperature: Divisor of the logits, above 0; ``greedy`` does not depend on it.
        noise: ``[rows, d]`` uniform numbers in [0, 1), one per draw.
        generator: Random generator on the logits' device, used if ``noise`` is not given.

    Raises:
        InputError: ``d < 1``, greedy with ``d`` above the vocabulary, an unknown method, ``top_p`` or
            ``temperature`` out of range, or noise of another shape.
    """
    _check(d, method, top_p, temperature)
    if method == "greedy":
        if d > logits.shape[-1]:
            raise InputError(f"greedy sampling of d = {d} from {logits.shape[-1]} tokens; lower d")
        return logits.topk(d, dim=-1).indices
    noise = _noise(noise, len(logits), d, logits.device, generator)
    exact = exact_dtype(logits)
    probabilities = torch.softmax(logits.to(exact) / temperature, dim=-1)
    if method == "multinomial" or top_p == 1:
        return _invert(probabilities, noise)
    return _draw_from_nucleus(probabilities, noise, top_p)


def _draw_from_nucleus(probabilities: Tensor, noise: Tensor, top_p: float, likely: int = LIKELY_TOKENS) -> Tensor:
    """Token ids ``[rows, d]``; rows whose ``likely`` first tokens have too little mass search among more of them."""
    # A full sort of 152k probabilities per row is slow. The nucleus of most rows is a few tokens: search the most
    # likely tokens first, and continue only with the rows whose nucleus is larger.
    values, tokens = probabilities.topk(min(likely, probabilities.shape[-1]), dim=-1)
    before = values.cumsum(-1) - values
    drawn = tokens.gather(-1, _invert(values.masked_fill(before >= top_p, 0.0), noise))
    if likely < probabilities.shape[-1]:
        flat = (values.sum(-1) < top_p).nonzero().flatten()
        if len(flat):
            drawn[flat] = _draw_from_nucleus(probabilities[flat], noise[flat], top_p, 16 * likely)
    return drawn


def _invert(mass: Tensor, noise: Tensor) -> Tensor:
    """For each number the entry where the cumulative share of ``mass [rows, n]`` passes it: ``[rows, d]``."""
    # float64: over 152k entries a float32 running sum loses the small ones.
    cumulative = mass.double().cumsum(-1)
    total = cumulative[:, -1:]
    # Rounding may put noise * total past the last entry with mass; never return an entry without mass.
    last = (cumulative < total).sum(-1, keepdim=True)  # of the entries with any mass
    return torch.searchsorted(cumulative, noise * total, right=True).minimum(last)


def _noise(noise: Tensor | None, rows: int, d: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    if noise is None:
        return torch.rand(rows, d, dtype=torch.float64, device=device, generator=generator)
    if noise.shape != (rows, d):
        raise InputError(f"noise has shape {tuple(noise.shape)}, expected ({rows}, {d}), one number per draw")
    return noise.to(device, torch.float64)


def _check(d: int, method: str, top_p: float, temperature: float) -> None:
    if d < 1:
        raise InputError(f"the number of candidates per step must be at least 1, got d = {d}")
    if method not in METHODS:
        raise InputError(f"unknown sampling method {method!r}; expected one of {', '.join(METHODS)}")
    if not 0 < top_p <= 1:
        raise InputError(f"top_p must be above 0 and at most 1, got {top_p}")
    if not temperature > 0:
        raise InputError(f"temperature must be above 0, got {temperature}")
