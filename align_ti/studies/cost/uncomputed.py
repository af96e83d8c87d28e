"""Models of any size on any machine, to count what a step costs: their weights and their products are not there.

Every weight is one zero seen as a matrix. A matrix product gives zeros without being computed, and is not added where
it is added in place. All the rest of a step runs as it is, so the FLOP counter sees the products of a real step.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

aten = torch.ops.aten


class Uncomputed(TorchDispatchMode):
    """While it is on, matrix products are zeros at once. Enter the FLOP counter after it."""

    def __init__(self) -> None:
        super().__init__()
        self.zeros: dict[torch.dtype, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace the products, and leave out adding one in place."""
        if func in (aten.mm.default, aten.bmm.default, aten.addmm.default):
            left, right = args[-2:]
            zero = self.zeros.setdefault(left.dtype, left.new_zeros(()))
            return zero.expand(*left.shape[:-1], right.shape[-1])
        if func is aten.addmm_.default or (func is aten.add_.Tensor and self.is_product(args[1])):
            return args[0]
        return func(*args, **(kwargs or {}))

    def is_product(self, value: Any) -> bool:
        """Whether a tensor is one of these zeros, or a view of them."""
        zero = self.zeros.get(value.dtype) if isinstance(value, Tensor) else None
        return zero is not None and value.data_ptr() == zero.data_ptr()


def hollow(model: PreTrainedModel) -> PreTrainedModel:
    """A model from the device ``meta`` with weights and buffers on the CPU, all 0 and almost without memory."""
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            zeros = torch.zeros((), dtype=weight.dtype).expand(weight.shape)
            module.register_parameter(name, nn.Parameter(zeros, requires_grad=weight.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.zeros(buffer.shape, dtype=buffer.dtype))
    model.tie_weights()
    return model
