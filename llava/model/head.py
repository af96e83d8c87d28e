"""The output head of a language model, with access to its weight for losses that never compute all logits."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class LanguageHead(nn.Linear):
    """A linear layer whose forward can pass its weight to a function.

    Code that runs inside a module's forward sees its full parameters: DeepSpeed ZeRO-3 gathers them there, and again
    before the backward pass. ``head(hidden, using=f)`` returns ``f(hidden, weight)``, which must be a tensor or a plain
    tuple of tensors, so that ZeRO-3's hooks find them.
    """

    def forward(self, input: Tensor, using: Callable[[Tensor, Tensor], Any] | None = None) -> Any:
        """Logits ``[..., V]`` of ``input [..., D]``, or the result of ``using`` on input and weight ``[V, D]``."""
        return super().forward(input) if using is None else using(input, self.weight)


def with_weight(head: nn.Module, hidden: Tensor, function: Callable[[Tensor, Tensor], Any]) -> Any:
    """``function(hidden, weight)``, called inside the head's forward if it is a ``LanguageHead``, otherwise
    directly."""
    return head(hidden, using=function) if isinstance(head, LanguageHead) else function(hidden, head.weight)  # type: ignore[arg-type]
