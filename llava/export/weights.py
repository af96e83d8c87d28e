"""Weight names in this package and in transformers' LLaVA, and added vocabulary rows."""

from __future__ import annotations

import torch
from torch import Tensor

PREFIXES = {
    "model.mm_projector.0.": "model.multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "model.multi_modal_projector.linear_2.",
    "model.": "model.language_model.",
}
"""Name prefix here -> there; the first match counts. ``lm_head.weight`` is the same in both."""

OUR_TOWER = "model.vision_tower."
THEIR_TOWER = "model.vision_tower."
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def to_hf_names(weights: dict[str, Tensor], tower: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a whole model's weights.

    Args:
        weights: The model's state; a tower in it is left out.
        tower: The tower's own state, which replaces it.
    """
    return {THEIR_TOWER + key: value for key, value in tower.items()} | _renamed(weights, PREFIXES, OUR_TOWER)


def from_hf_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse, without the tower."""
    return _renamed(weights, {theirs: ours for ours, theirs in PREFIXES.items()}, THEIR_TOWER)


def _renamed(weights: dict[str, Tensor], prefixes: dict[str, str], left_out: str) -> dict[str, Tensor]:
    """Every weight with its new prefix, or unchanged if none matches; weights starting with ``left_out`` are
    dropped."""
    renamed = {}
    for key, value in weights.items():
        if not key.startswith(left_out):
            prefix = next((prefix for prefix in prefixes if key.startswith(prefix)), "")
            renamed[prefixes.get(prefix, "") + key.removeprefix(prefix)] = value
    return renamed


def grow(table: Tensor, rows: int, real: int) -> Tensor:
    """Add rows to an embedding or a head ``[V, D]`` without changing the existing ones.

    A new row is the mean of the real rows. In the head its logit is then the mean of their logits, so greedy decoding
    never picks it.

    Args:
        table: ``[V, D]``.
        rows: New number of rows; a larger table is left unchanged.
        real: Number of leading rows that belong to tokens.
    """
    missing = rows - len(table)
    if missing <= 0:
        return table
    mean = table[: min(real, len(table))].float().mean(dim=0, keepdim=True).to(table.dtype)
    return torch.cat([table, mean.expand(missing, -1)])
