"""Which candidate tokens run, and the position, attention and weight of each (the paper, Eq. 7).

At step ``k`` the ``d`` draws ``y_k^(u)`` replace the response token ``y_k``: each has its position id, and attends to
every token before it and to itself. No other token attends to a draw. The outputs give ``P(y_{k+1} | y_k^(u), x,
y_<k)``.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from align_ti.transfer import send
from llava.constants import IGNORE_INDEX
from llava.errors import InputError


@dataclass(frozen=True)
class SupervisedTokens:
    """The tokens a batch is trained to predict, in reading order; every tensor is long ``[L]``.

    Attributes:
        sample, column: Position of the token in the batch ``[B, S]``.
        label: Token id.
        predicting: Index into ``[B * S]`` of the position before it, whose output predicts it.
    """

    sample: Tensor
    column: Tensor
    label: Tensor
    predicting: Tensor

    def __len__(self) -> int:
        return len(self.label)

    def to(self, device: torch.device) -> "SupervisedTokens":
        """The same on a device."""
        return SupervisedTokens(*(send(tensor, device) for tensor in vars(self).values()))


@dataclass(frozen=True)
class CandidateLayout:
    """Candidate rows of a batch, concatenated in the order of their samples and steps.

    Attributes:
        sample: Long ``[C]``, row of the batch.
        limit: Long ``[C]``, column of ``y_k``: the candidate attends to the real columns before it, and to itself.
        position_id: Long ``[C]``.
        token: Long ``[C]``.
        weight: ``[C]``, number of draws it represents, divided by ``d``; 0 if its divergence does not count.
        main_weight: ``[B, S]``, the same for draws equal to ``y_k``, at the position of ``y_k``.
        steps: Number of supervised tokens, ``L``.
    """

    sample: Tensor
    limit: Tensor
    position_id: Tensor
    token: Tensor
    weight: Tensor
    main_weight: Tensor
    steps: int

    def __len__(self) -> int:
        return len(self.token)

    def to(self, device: torch.device) -> "CandidateLayout":
        """The same on a device."""
        tensors: dict[str, Any] = {
            name: send(value, device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **tensors)


def supervised_tokens(labels: Tensor, attention_mask: Tensor) -> SupervisedTokens:
    """Find the supervised tokens: those with a label and a real token before them that predicts them.

    Args:
        labels: Long ``[B, S]``, -100 where not a target; aligned with the inputs (not shifted).
        attention_mask: Bool ``[B, S]``, True at real tokens.
    """
    target = labels != IGNORE_INDEX
    # A target needs a real token before it, in its own row: the logits there predict it.
    target[:, 0] = False
    target[:, 1:] &= attention_mask[:, :-1].bool() & attention_mask[:, 1:].bool()
    sample, column = target.nonzero(as_tuple=True)
    return SupervisedTokens(sample, column, labels[sample, column], sample * labels.shape[1] + column - 1)


def candidate_layout(
    supervised: SupervisedTokens,
    draws: Tensor,
    attention_mask: Tensor,
    position_ids: Tensor,
    *,
    end_of_turn_ids: Collection[int] = (),
    merge: bool = True,
    dtype: torch.dtype = torch.float32,
) -> CandidateLayout:
    """Lay out the drawn candidates of a batch.

    Draws that end the turn contribute zero, because nothing is generated after them. Merged, they have no row, equal
    draws of a step share one row, and a draw equal to ``y_k`` uses the main path's output at that position. Unmerged,
    every draw is a row, as in the paper's Algorithm 1. Both give the same loss.

    There is always at least one row (of weight 0 if need be), so that all ranks run the same passes.

    Args:
        supervised: Result of ``supervised_tokens``.
        draws: Long ``[L, d]``.
        attention_mask: Bool ``[B, S]``.
        position_ids: Long ``[B, S]``.
        end_of_turn_ids: Token ids that end an assistant turn.
        merge: Merge draws, see above.
        dtype: Data type of the weights.

    Raises:
        InputError: ``draws`` does not have one row per supervised token, or ``d < 1``.
    """
    if draws.ndim != 2 or draws.shape[0] != len(supervised) or draws.shape[1] < 1:
        raise InputError(f"draws are {tuple(draws.shape)}, expected ({len(supervised)}, d) with d >= 1")
    steps, d = draws.shape
    token = draws.flatten()
    step = torch.arange(steps, device=draws.device).repeat_interleave(d)
    counts = torch.ones_like(token)
    ends = torch.isin(token, torch.tensor(sorted(end_of_turn_ids), dtype=token.dtype, device=token.device))
    main_weight = torch.zeros(attention_mask.shape, dtype=dtype, device=draws.device)
    if merge:
        # A draw equal to the label needs no row: the main pass has the output of y_k, and the draw is counted there.
        equal = (token == supervised.label[step]) & ~ends
        matched = equal.view(steps, d).sum(-1)
        main_weight[supervised.sample, supervised.column] = matched.to(dtype) / d
        # Equal draws of a step give equal outputs: one row, weighted by the number of draws. Sorted by step, as the
        # backends expect.
        rest = ~ends & ~equal
        width = int(token.max()) + 1 if len(token) else 1  # a step and a token as one number: pairs sort slowly
        pairs, counts = torch.unique(step[rest] * width + token[rest], sorted=True, return_counts=True)
        step, token, ends = pairs // width, pairs % width, torch.zeros_like(counts, dtype=torch.bool)
    weight = torch.where(ends, 0, counts).to(dtype) / d
    sample, limit = supervised.sample[step], supervised.column[step]
    # All ranks run the same passes: DDP and ZeRO-3 wait for each other's collectives.
    if not len(token):
        sample, limit = _a_real_place(attention_mask)
        token, weight = torch.zeros_like(sample), torch.zeros_like(sample, dtype=dtype)
    return CandidateLayout(sample, limit, position_ids[sample, limit], token, weight, main_weight, steps)


def _a_real_place(attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sample and column, each ``[1]``, of the first sample's last real token."""
    column = attention_mask[:1].long().cumsum(1).argmax(1)
    return torch.zeros_like(column), column
