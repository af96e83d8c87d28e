"""A share in percent over many texts, with its standard error."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """A share: percent, its standard error (None for fewer than two texts), and the number of things it is of."""

    percent: float
    standard_error: float | None
    count: int


def share(counts: Sequence[tuple[int, int]]) -> Share:
    """The share of all texts together, from (part, whole) of each text.

    The texts are independent, what they count need not be: the error is that of a ratio of two means over texts.
    """
    part, whole, number = sum(p for p, _ in counts), sum(w for _, w in counts), len(counts)
    if not whole:
        return Share(0.0, None, 0)
    error = None
    if number > 1:
        spread = sum((p - part / whole * w) ** 2 for p, w in counts)
        error = 100 * math.sqrt(spread * number / (number - 1)) / whole
    return Share(100 * part / whole, error, whole)
