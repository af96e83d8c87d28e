"""Sampled answers that do not depend on the other questions in the batch.

Every question has its own random numbers, derived from the seed and its key: the batch size, the number of processes
and restarts do not change the samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor


@dataclass(frozen=True)
class Draws:
    """Settings of the sampling.

    Attributes:
        temperature: Divides the logits; above 0.
        top_p: Sample from the most likely tokens that together reach this probability, in (0, 1].
        seed: Random seed.
    """

    temperature: float
    top_p: float = 1.0
    seed: int = 0

    def processor(self, keys: Sequence[str]) -> "DrawnTokens":
        """A logits processor for one batch of greedy ``generate``, given the key of each row's question."""
        return DrawnTokens(self, keys)


class DrawnTokens(LogitsProcessor):
    """Draws the next token of each row and masks all others."""

    def __init__(self, draws: Draws, keys: Sequence[str]) -> None:
        self.draws = draws
        self.numbers = [np.random.default_rng(_entropy(draws.seed, key)) for key in keys]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        """Logits ``[B, V]`` -> 0 at the drawn token, minus infinity elsewhere."""
        numbers = torch.tensor([[own.random()] for own in self.numbers], dtype=torch.float64, device=scores.device)
        probabilities = (scores.float() / self.draws.temperature).softmax(-1)
        likely, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
        reached = likely.double().cumsum(-1)
        kept = ((reached - likely) < self.draws.top_p).sum(-1, keepdim=True).clamp(min=1)  # the first always
        mass = reached.gather(-1, kept - 1)
        index = torch.searchsorted(reached, numbers * mass, right=True).minimum(kept - 1)
        return torch.full_like(scores, -torch.inf).scatter_(-1, tokens.gather(-1, index), 0.0)


def _entropy(seed: int, key: str) -> int:
    return int.from_bytes(blake2b(f"{seed}:{key}".encode(), digest_size=16).digest(), "little")
