"""Products of a language head with rows of hidden states, forward and backward, in the model's precision.

float16 (2^-24 to 65,504) needs care. Gradients by logits carry weights such as 1/tokens and the probabilities of a
vocabulary of 152k, and are computed before the loss scale is known: cast directly, they underflow to 0. So logits are
float32, each row of their gradient is scaled to the top of the range by a power of two before it is cast, products are
float32, and the power of two is divided out again.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from align_ti.numerics import head_rows

LARGEST_EXPONENT = 15
"""Scaled float16 numbers stay below 2^15, half of the largest float16."""

SMALLEST_EXPONENT = -100
"""Rows below 2^-100 are scaled no further: the power of two is a float32 itself."""


class Head:
    """A head ``[V, D]`` without bias, and its products in one precision.

    Args:
        weight: ``[V, D]``.
        dtype: Dtype of the products.
    """

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.weight = weight.detach().to(dtype)

    def __len__(self) -> int:
        return len(self.weight)

    def rows(self, hidden: Tensor) -> Tensor:
        """Hidden states ``[N, D]`` in the dtype of the products."""
        return hidden.detach().to(self.dtype)

    def logits(self, rows: Tensor) -> Tensor:
        """``[N, V]`` of ``rows [N, D]``."""
        return rows @ self.weight.T

    def backward(self, logits_grad: Tensor, rows: Tensor, hidden: bool, weight_grad: Tensor | None) -> Tensor | None:
        """Gradients with respect to the rows and the head, given the gradient with respect to the logits.

        Args:
            logits_grad: ``[N, V]``, in the dtype of the logits.
            rows: ``[N, D]``, as passed to ``logits``.
            hidden: Whether to compute the gradient of the rows.
            weight_grad: ``[V, D]``, to which the head's gradient is added; None if the head is frozen.

        Returns:
            The rows' gradient ``[N, D]``, or None.
        """
        if weight_grad is not None:
            if weight_grad.dtype == logits_grad.dtype:
                weight_grad.addmm_(logits_grad.T, rows)
            elif weight_grad.is_cuda and weight_grad.dtype == torch.float32:  # the product adds in float32 itself
                torch.addmm(weight_grad, logits_grad.T, rows, out_dtype=torch.float32, out=weight_grad)
            else:  # a block of the head at a time: no second tensor of its size
                for part in _parts(weight_grad):
                    weight_grad[part] += logits_grad[:, part].T @ rows
        return logits_grad @ self.weight if hidden else None


class Float16Head(Head):
    """The same in float16: logits, and gradients, in float32."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight, torch.float16)
        self.weight = _right_factor(self.weight)

    def logits(self, rows: Tensor) -> Tensor:
        """``[N, V]``, float32, of ``rows [N, D]``."""
        return _product(rows, self.weight.T)

    def backward(self, logits_grad: Tensor, rows: Tensor, hidden: bool, weight_grad: Tensor | None) -> Tensor | None:
        """See ``Head.backward``."""
        left = _scaled(logits_grad, logits_grad.abs().amax(1, keepdim=True))
        if weight_grad is not None:
            weighted = rows.to(torch.float32) * left.unit
            right = _scaled(weighted, weighted.abs().amax())
            values = _right_factor(right.values)
            for part in _parts(weight_grad):
                weight_grad[part] += _product(left.values[:, part].T, values).mul_(right.unit)
        return _product(left.values, self.weight).mul_(left.unit) if hidden else None


def head_of(weight: Tensor) -> Head:
    """A head in its own precision, or in autocast's where that is on."""
    device = weight.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    return Float16Head(weight) if dtype == torch.float16 else Head(weight, dtype)


class _Scaled(NamedTuple):
    """``values * unit`` is a float32 matrix to float16's precision: ``values`` float16, ``unit`` powers of two."""

    values: Tensor
    unit: Tensor


def _scaled(matrix: Tensor, largest: Tensor) -> _Scaled:
    """A float32 matrix ``[N, K]`` with largest magnitudes ``[N, 1]`` or of all ``[]``."""
    exponent = torch.frexp(largest).exponent.clamp(min=SMALLEST_EXPONENT) - LARGEST_EXPONENT
    unit = torch.ldexp(torch.ones_like(largest), exponent)
    return _Scaled(torch.div(matrix, unit, out=torch.empty_like(matrix, dtype=torch.float16)), unit)


def _right_factor(matrix: Tensor) -> Tensor:
    """A float16 matrix as ``_product`` takes it on the right: in float32 where no product of float16 gives float32."""
    return matrix if matrix.is_cuda else matrix.to(torch.float32)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right`` in float32, of float16 numbers."""
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.to(torch.float32) @ right


def _parts(weight: Tensor) -> list[slice]:
    """Blocks of a head's rows."""
    size = head_rows(weight)
    return [slice(start, start + size) for start in range(0, len(weight), size)]
