"""A few of a sample's rows in place of all of them, drawn by weight: sums keep their expectation.

Systematic sampling with probabilities proportional to size. Rows that weigh at least a threshold are kept with their
weight. The others lie one after the other on a line, each as long as its weight; marks stand on it a threshold apart,
the first at a random place, and the rows under a mark are kept with the threshold as their weight. The threshold is
the one that leaves the number asked for.

A row's expected weight is its weight, so loss and gradient are unbiased whatever is summed; the total weight is kept
in every draw; and the marks are spread over the line, so neighbouring tokens of an image, which are similar, are not
all drawn or all left out.
"""

import torch
from torch import Tensor


def drawn_weights(weight: Tensor, rows: int, uniform: Tensor) -> Tensor:
    """Weights that keep at most ``rows`` rows of each sample.

    Args:
        weight: ``[B, W]``, the weights of each sample's rows in their order, at least 0; 0 is no row.
        rows: Number of rows to keep, at least 1. A sample that has no more keeps all, with their weights.
        uniform: float64 ``[B]`` in [0, 1), the random number of each sample.

    Returns:
        ``[B, W]``; each sample's weights have the same sum as before, and each row the same expectation.
    """
    exact = weight.double()
    step = threshold(exact, rows)
    certain = exact >= step
    line = exact.masked_fill(certain, 0.0).cumsum(1)
    # As a share of its length, the line ends at a whole number of marks whatever was rounded.
    share = line / line[:, -1:].clamp(min=torch.finfo(exact.dtype).tiny)
    marks = share * (rows - certain.sum(1, keepdim=True)) + uniform[:, None]
    under = marks.floor().diff(dim=1, prepend=torch.zeros_like(step))
    return torch.where(certain, weight, (under * step).to(weight.dtype))


def threshold(weight: Tensor, rows: int) -> Tensor:
    """The ``t`` at which ``sum(min(1, weight / t))`` is ``rows``; 0 where no more than these have a weight.

    Args:
        weight: ``[B, W]``, at least 0.
        rows: At least 1.

    Returns:
        ``[B, 1]``.
    """
    falling = weight.sort(1, descending=True).values
    behind = falling.flip(1).cumsum(1).flip(1)  # what these and all smaller ones weigh
    left = rows - torch.arange(weight.shape[1], dtype=weight.dtype, device=weight.device)
    # The m largest are kept for certain: the first m after which none is above its share of what is left.
    certain = (left * falling <= behind).int().argmax(1, keepdim=True)
    step = behind.gather(1, certain) / left[certain]
    return step.where((weight > 0).sum(1, keepdim=True) > rows, 0.0)
