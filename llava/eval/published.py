"""The paper's published scores, for comparison."""

from collections.abc import Mapping
from types import MappingProxyType

_NAMES = ("gqa", "sqa", "textvqa", "pope", "mme", "mmbench")
_SCORES = {
    "Align-TI Qwen2-2B (paper)": (62.9, 71.4, 65.1, 86.1, 75.6, 71.8),
    "Align-TI Qwen3-2B (paper)": (62.6, 76.5, 67.1, 86.6, 73.4, 75.2),
    "Align-TI Qwen2-1B (paper)": (60.4, 60.7, 59.9, 86.8, 68.9, 63.2),
    "Align-TI Qwen3-1B (paper)": (61.2, 68.4, 64.1, 86.9, 70.0, 67.6),
}

PUBLISHED: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {model: dict(zip(_NAMES, scores, strict=True)) for model, scores in _SCORES.items()}
)
"""Scores by model and benchmark name."""
