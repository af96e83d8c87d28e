"""Forward KL and cross-entropy of a block of logits together with their gradient, in closed form.

Both losses of the paper read the same softmax of the student, and the gradient of its logits is written down at once:
``w (P_S - P_T) + c (P_S - 1_y)``. This avoids the passes over ``[rows, V]`` that automatic differentiation would make,
and is simple enough for ``torch.compile`` to fuse into two loops.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from llava.errors import InputError
from llava.fusion import fuse, short_reason


class ForwardKLTerms(NamedTuple):
    """``divergence`` and ``cross_entropy``: ``[rows]``, nats; ``logits_grad``: ``[rows, V]``, in the logits' dtype."""

    divergence: Tensor
    cross_entropy: Tensor
    logits_grad: Tensor


def forward_kl_terms(
    student: Tensor, teacher: Tensor, targets: Tensor, weights: Tensor, ce_weights: Tensor, compiled: bool = False
) -> ForwardKLTerms:
    """``KL(P_T || P_S)`` (Eq. 2), the cross-entropy, and the gradient of ``sum_r w_r KL_r + c_r CE_r``.

    Args:
        student: Logits ``[rows, V]``.
        teacher: Logits ``[rows, V]``.
        targets: ``[rows]`` token ids; any valid id where ``ce_weights`` is 0.
        weights: ``w``, ``[rows]``, in the dtype that losses are taken in.
        ce_weights: ``c``, ``[rows]``.
        compiled: Fuse the passes with ``torch.compile``; the first call of each kind takes seconds.
    """
    if compiled:
        return ForwardKLTerms(*fuse(_fused_form)(student, teacher, targets[:, None], weights, ce_weights))
    divergence, cross_entropy, gradient = _closed_form(student, teacher, targets[:, None], weights, ce_weights)
    gradient[torch.arange(len(targets), device=targets.device), targets] -= ce_weights
    return ForwardKLTerms(divergence, cross_entropy, gradient.to(student.dtype))


def _closed_form(
    student: Tensor, teacher: Tensor, targets: Tensor, weights: Tensor, ce_weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Everything except the target's term of the gradient; in place where possible."""
    log_s = log_softmax(student, -1, dtype=weights.dtype)
    log_t = log_softmax(teacher, -1, dtype=weights.dtype)
    cross_entropy = -log_s.gather(1, targets)[:, 0]
    p_t = log_t.exp()
    divergence = (p_t * log_t.sub_(log_s)).sum(-1)
    gradient = log_s.exp_().mul_((weights + ce_weights)[:, None]).sub_(p_t.mul_(weights[:, None]))
    return divergence, cross_entropy, gradient


def _fused_form(
    student: Tensor, teacher: Tensor, targets: Tensor, weights: Tensor, ce_weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same for a compiler, the target's term included: the gradient is then written once, in the logits' dtype."""
    log_s = log_softmax(student, -1, dtype=weights.dtype)
    log_t = log_softmax(teacher, -1, dtype=weights.dtype)
    cross_entropy = -log_s.gather(1, targets)[:, 0]
    p_t = log_t.exp()
    divergence = (p_t * (log_t - log_s)).sum(-1)
    column = torch.arange(student.shape[1], device=student.device)
    at_target = torch.where(column == targets, ce_weights[:, None], 0.0)
    gradient = log_s.exp() * (weights + ce_weights)[:, None] - p_t * weights[:, None] - at_target
    return divergence, cross_entropy, gradient.to(student.dtype)


def check_compiler(device: torch.device) -> None:
    """Compile the closed form once, on a tiny input.

    Raises:
        InputError: If ``torch.compile`` does not work here.
    """
    logits, ones = torch.zeros(2, 8, device=device), torch.ones(2, device=device)
    try:
        forward_kl_terms(logits, logits, ones.long(), ones, ones, compiled=True)
    except Exception as error:  # whatever a compiler may raise
        raise InputError(
            f"--compile_losses needs torch.compile, which does not run here ({short_reason(error)}); it takes a C++ "
            "compiler on a CPU and triton on a GPU. Install that, or leave the flag out: it changes rounding alone"
        ) from error
