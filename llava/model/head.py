"""The output head of a language model, open to losses that read its weight without making all logits."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class LanguageHead(nn.Linear):
    """A linear layer whose forward can hand its weight to a function.

    Whatever runs inside a module's forward sees its parameters whole: DeepSpeed ZeRO-3 gathers them there, and again
    before the backward. ``head(hidden, using=f)`` returns ``f(hidden, weight)``, which must be a tensor or a plain
    tuple of tensors, so that ZeRO-3's hooks find them.
    """

    def forward(self, input: Tensor, using: Callable[[Tensor, Tensor], Any] | None = None) -> Any:
        """Logits ``[..., V]`` of ``input [..., D]``, or what ``using`` makes of input and weight ``[V, D]``."""
        return super().forward(input) if using is None else using(input, self.weight)


def with_weight(head: nn.Module, hidden: Tensor, function: Callable[[Tensor, Tensor], Any]) -> Any:
    """``function(hidden, weight)`` inside the head's forward where it is a ``LanguageHead``, plainly otherwise."""
    return head(hidden, using=function) if isinstance(head, LanguageHead) else function(hidden, head.weight)  # type: ignore[arg-type]
