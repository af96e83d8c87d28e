"""Next-token cross-entropy computed only at the supervised positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from llava.constants import IGNORE_INDEX

CHUNK = 2048
"""Maximum number of supervised positions whose logits are held at once; more are processed in chunks, recomputed in the
backward pass."""


def _cross_entropy_sum(lm_head: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    logits = lm_head(hidden)
    return F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), targets, reduction="sum")


def next_token_loss(
    hidden: Tensor, labels: Tensor, lm_head: nn.Module, num_items: Tensor | int | None = None
) -> tuple[Tensor, int]:
    """Cross-entropy of the hidden state at ``p`` against the label at ``p + 1``.

    The head runs only on supervised rows; ``[B, S, vocabulary]`` is never built. Without supervised rows the loss is
    zero but still connected to the hidden states and the head, so that distributed backward passes match.

    Args:
        hidden: Last hidden states ``[B, S, D]``.
        labels: ``[B, S]``, -100 where there is no target; not shifted.
        lm_head: Module from ``[..., D]`` to logits.
        num_items: Denominator of the sum (the supervised tokens of the global batch); by default this batch's.

    Returns:
        The scalar loss and the number of supervised tokens of this batch.
    """
    supervised = labels[:, 1:] != IGNORE_INDEX
    rows = hidden[:, :-1][supervised]
    targets = labels[:, 1:][supervised]
    count = int(targets.numel())
    if count == 0:
        return (lm_head(hidden[:1, :1]) * 0).sum().float() + (hidden * 0).sum().float(), 0
    if count <= CHUNK:
        total = _cross_entropy_sum(lm_head, rows, targets)
    else:
        parts = [
            checkpoint(_cross_entropy_sum, lm_head, part, target, use_reentrant=False)
            for part, target in zip(rows.split(CHUNK), targets.split(CHUNK), strict=True)
        ]
        total = torch.stack(parts).sum()
    return total / (count if num_items is None else num_items), count
