"""MiniLLM's reverse KL on the student's own responses (Gu et al. 2023, arXiv 2306.08543, section 2.2).

The gradient of ``KL(P_S || P_T)`` over whole responses ``y ~ P_S`` splits at each token into

- the **single-step** part, the gradient of the exact reverse KL of the next token, at every place of ``y``;
- the **long** part, ``- sum_t R_{t+1} grad log P_S(y_t | y_<t)`` with the rewards ``r_t = log P_T(y_t) - log P_S(y_t)``
  and the return ``R_{t+1} = r_{t+1} + ... + r_T`` of what comes after ``y_t``, a constant.

Length normalisation divides ``R_{t+1}`` by the number of its rewards, so that long responses do not weigh more; without
it the two parts are an unbiased estimate of the gradient of the sequence's reverse KL. Every response is sampled from
the student as it is and used for one step, so there is no PPO ratio and no clipping: the ratio would be 1. Sampling
from a mixture with the teacher is not built in. The cross-entropy that MiniLLM adds is ``sft``, in the steps on data.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from align_ti.losses.batch import MicroBatch
from align_ti.losses.heads import head_of
from align_ti.losses.linear_heads import linear_divergence
from align_ti.losses.loss import HeadLoss, LossConfig, Steps, factor
from align_ti.numerics import default_chunk_rows, exact_dtype


@dataclass(frozen=True, kw_only=True)
class PolicyGradientConfig(LossConfig):
    """Settings of MiniLLM's policy gradient."""

    section: ClassVar[str] = "pg"
    weight: float = factor("MiniLLM's policy gradient, on on-policy steps alone")


class PolicyGradientLoss(HeadLoss[PolicyGradientConfig]):
    """Policy gradient of the reverse KL. Its value is not informative (the long part is a surrogate); ``reverse_kl``,
    logged with it, is exact."""

    name = "pg"
    title = "policy gradient of the reverse KL (MiniLLM)"
    equation = r"\frac{1}{L} \sum_t [D_{KL}(P_S \| P_T)(\cdot \mid x, y_{<t}) - R_{t+1} \log P_S(y_t \mid x, y_{<t})]"
    signed = True
    Config = PolicyGradientConfig
    steps = Steps.SAMPLED
    also_logged = ("reverse_kl",)

    def rows(self, batch: MicroBatch) -> Tensor:
        """The positions that predict the responses' tokens."""
        return batch.supervised.predicting

    def compute(
        self,
        student_hidden: Tensor,
        student_weight: Tensor,
        teacher_hidden: Tensor,
        teacher_weight: Tensor,
        *,
        batch: MicroBatch,
        count: Tensor,
        compiled: bool,
    ) -> tuple[Tensor, Tensor]:
        """See ``HeadLoss.compute``."""
        return policy_gradient(
            student_hidden,
            student_weight,
            teacher_hidden,
            teacher_weight,
            targets=batch.supervised.label,
            sample=batch.samples(batch.supervised.predicting),
            scale=1 / count.to(exact_dtype(student_hidden)),
            compiled=compiled,
        )[:2]


class PolicyGradient(NamedTuple):
    """``loss``: differentiable scalar whose gradient is the estimate (its value is not informative: the long part
    is a surrogate). ``reverse_kl``: detached, the single-step part's value."""

    loss: Tensor
    reverse_kl: Tensor


def policy_gradient(
    student_hidden: Tensor,
    student_weight: Tensor,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    *,
    targets: Tensor,
    sample: Tensor,
    scale: Tensor,
    length_normalised: bool = True,
    chunk_rows: int | None = None,
    compiled: bool = False,
) -> PolicyGradient:
    """Both parts, summed over all tokens and multiplied by ``scale``.

    Distributions run over the vocabulary rows both heads have, at temperature 1. Two passes over chunks of rows: one
    for the rewards, one for the losses.

    Args:
        student_hidden: ``[L, D_s]`` at the positions that predict the responses' tokens, sample by sample, in order.
        student_weight: ``[V_s, D_s]``, the head without bias.
        teacher_hidden: ``[L, D_t]``, row for row with the student's.
        teacher_weight: ``[V_t, D_t]``.
        targets: Long ``[L]``, the sampled tokens.
        sample: Long ``[L]``, in ascending order: the response each token belongs to.
        scale: Factor of the sum; 1 over the supervised tokens of the global batch gives the mean.
        length_normalised: See above.
        chunk_rows, compiled: As in ``linear_divergence``.
    """
    common = min(len(student_weight), len(teacher_weight))
    if common < len(student_weight):
        student_weight = student_weight[:common]
    taught, learnt = (
        log_probabilities(hidden, weight[:common], targets, chunk_rows)
        for hidden, weight in ((teacher_hidden, teacher_weight), (student_hidden, student_weight))
    )
    returns = returns_after(taught - learnt, sample, length_normalised)
    weights = torch.ones_like(returns) * scale
    result = linear_divergence(
        student_hidden,
        student_weight,
        teacher_hidden,
        teacher_weight,
        weights=weights,
        targets=targets,
        ce_weights=returns * scale,  # - R log P_S is R times the cross-entropy
        divergence="reverse_kl",
        chunk_rows=chunk_rows,
        compiled=compiled,
    )
    return PolicyGradient(result.loss, (weights * result.divergence).sum())


@torch.no_grad()
def log_probabilities(hidden: Tensor, weight: Tensor, targets: Tensor, chunk_rows: int | None = None) -> Tensor:
    """``log P(target)`` of each row from hidden states ``[L, D]`` and a head ``[V, D]``, in chunks -> ``[L]``."""
    exact = exact_dtype(hidden)
    head = head_of(weight)
    out = torch.empty(len(hidden), dtype=exact, device=hidden.device)
    rows = chunk_rows or default_chunk_rows(len(weight), hidden.device)
    for places in torch.arange(len(hidden), device=hidden.device).split(rows):
        with torch.autocast(hidden.device.type, enabled=False):
            logits = head.logits(head.rows(hidden[places])).to(exact)
        out[places] = logits.gather(1, targets[places, None])[:, 0] - logits.logsumexp(1)
    return out


def returns_after(rewards: Tensor, sample: Tensor, length_normalised: bool = True) -> Tensor:
    """``R_{t+1}`` of each token: the sum, or the mean, of the rewards behind it in its response; 0 at the last token.

    Args:
        rewards: ``[L]``.
        sample: Long ``[L]``, in ascending order.
        length_normalised: Take the mean.
    """
    last = (torch.bincount(sample).cumsum(0) - 1)[sample]
    following = rewards.double().flip(0).cumsum(0).flip(0) - rewards.double()
    behind = last - torch.arange(len(rewards), device=rewards.device)
    returns = following - following[last]
    return (returns / behind.clamp(min=1) if length_normalised else returns).to(rewards.dtype)
