"""Sampling settings of answers."""

import math
from dataclasses import dataclass
from typing import Any

from llava.errors import InputError
from llava.inference.greedy import GREEDY


@dataclass(frozen=True)
class Sampling:
    """Greedy by default; a temperature above 0 samples from the ``top_p`` most likely tokens."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 512

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"the temperature is {self.temperature}; it must be 0 (greedy) or above")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1")

    def arguments(self) -> dict[str, Any]:
        """Arguments of ``generate``; they override a checkpoint's own generation settings, as in evaluation."""
        chosen: dict[str, Any] = {**GREEDY, "max_new_tokens": self.max_new_tokens}
        if self.temperature > 0:
            chosen |= {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        return chosen
