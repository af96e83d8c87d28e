"""The module between vision tower and language model."""

from __future__ import annotations

import re

from torch import nn
from transformers import PreTrainedConfig

from llava.errors import InputError
from llava.model.config import VisionSettings

CHOICES = "'linear', 'identity' or 'mlpNx_gelu' with N >= 1 (for example 'mlp2x_gelu')"


def build_projector(config: PreTrainedConfig) -> nn.Module:
    """Build the projector named in a config, randomly initialised.

    ``mlpNx_gelu`` is N linear layers with GELU between them, in an ``nn.Sequential`` whose weights are called
    ``0.weight, 2.weight, ...`` as in LLaVA's checkpoints.

    Args:
        config: Language model config with ``mm_projector_type``, ``mm_hidden_size`` and ``hidden_size``.

    Returns:
        A module from ``[..., mm_hidden_size]`` to ``[..., hidden_size]``.

    Raises:
        InputError: The type is unknown, the vision width is missing, or ``identity`` is used with different widths.
    """
    settings = VisionSettings.from_config(config)
    kind, width, hidden = settings.projector_type, settings.hidden_size, config.hidden_size
    if width is None:
        raise InputError("the config has no mm_hidden_size: the projector needs the width of the vision features")
    if kind == "linear":
        return nn.Linear(width, hidden)
    if kind == "identity":
        if width != hidden:
            raise InputError(
                f"mm_projector_type 'identity' needs vision features as wide as the language model: {width} "
                f"is not {hidden}; use 'linear' or 'mlp2x_gelu'"
            )
        return nn.Identity()
    match = re.fullmatch(r"mlp([1-9]\d*)x_gelu", kind)
    if match is None:
        raise InputError(f"unknown mm_projector_type {kind!r}; expected {CHOICES}")
    layers: list[nn.Module] = [nn.Linear(width, hidden)]
    for _ in range(int(match.group(1)) - 1):
        layers += [nn.GELU(), nn.Linear(hidden, hidden)]
    return nn.Sequential(*layers)
