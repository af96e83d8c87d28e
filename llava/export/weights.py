"""Names of the same weights in this package and in transformers' LLaVA, and the rows of the vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

PREFIXES = {
    "model.mm_projector.0.": "model.multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "model.multi_modal_projector.linear_2.",
    "model.": "model.language_model.",
}
"""Beginning of a name here -> there; the first that fits counts. ``lm_head.weight`` is the same."""

OUR_TOWER = "model.vision_tower."
THEIR_TOWER = "model.vision_tower."
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def to_hf_names(weights: dict[str, Tensor], tower: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a whole model's weights.

    Args:
        weights: the model's state; a tower among them is left out.
        tower: the tower's own state, which goes in its place.
    """
    return {THEIR_TOWER + key: value for key, value in tower.items()} | _renamed(weights, PREFIXES, OUR_TOWER)


def from_hf_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reverse, the tower left out."""
    return _renamed(weights, {theirs: ours for ours, theirs in PREFIXES.items()}, THEIR_TOWER)


def _renamed(weights: dict[str, Tensor], prefixes: dict[str, str], left_out: str) -> dict[str, Tensor]:
    """Every weight under its new prefix, or its own name where none fits; none that begins with ``left_out``."""
    renamed = {}
    for key, value in weights.items():
        if not key.startswith(left_out):
            prefix = next((prefix for prefix in prefixes if key.startswith(prefix)), "")
            renamed[prefixes.get(prefix, "") + key.removeprefix(prefix)] = value
    return renamed


def grow(table: Tensor, rows: int, real: int) -> Tensor:
    """Add rows to an embedding or a head ``[V, D]`` without changing what is there.

    A new row is the mean of the real ones. In the head its logit is then the mean of theirs, so that greedy decoding
    never picks it.

    Args:
        table: ``[V, D]``.
        rows: wanted number of rows; a larger table stays as it is.
        real: how many of the first rows belong to tokens.
    """
    missing = rows - len(table)
    if missing <= 0:
        return table
    mean = table[: min(real, len(table))].float().mean(dim=0, keepdim=True).to(table.dtype)
    return torch.cat([table, mean.expand(missing, -1)])
