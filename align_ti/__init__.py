"""Align-TI: distilling multimodal language models through token interactions (arXiv 2602.09483).

The public names are imported on first use, so that ``import align_ti`` is fast::

    from align_ti import ObjectiveConfig, TPAConfig, distill, load
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import llava  # noqa: F401  # first: it quiets a message of a library that others import

if TYPE_CHECKING:
    from align_ti.checkpoint import Checkpoint, load
    from align_ti.config import ObjectiveConfig, RibbonConfig
    from align_ti.losses.divergences import DivergenceConfig
    from align_ti.losses.iva import IVAConfig
    from align_ti.losses.kd import KDConfig
    from align_ti.losses.policy_gradient import PolicyGradientConfig
    from align_ti.losses.relational import RelationalConfig
    from align_ti.losses.sft import SFTConfig
    from align_ti.losses.tpa import TPAConfig
    from align_ti.objective import Objective
    from align_ti.training.distill import Distilled, distill
    from align_ti.training.trainer import AlignTITrainer

_PLACES = {
    "Objective": "align_ti.objective",
    "ObjectiveConfig": "align_ti.config",
    "DivergenceConfig": "align_ti.losses.divergences",
    "RibbonConfig": "align_ti.config",
    "AlignTITrainer": "align_ti.training.trainer",
    "distill": "align_ti.training.distill",
    "Distilled": "align_ti.training.distill",
    "load": "align_ti.checkpoint",
    "Checkpoint": "align_ti.checkpoint",
}
"""Modules of the public names; settings of losses (``KDConfig``) are found through the registry."""

__all__ = [
    "AlignTITrainer",
    "Checkpoint",
    "Distilled",
    "DivergenceConfig",
    "IVAConfig",
    "KDConfig",
    "Objective",
    "ObjectiveConfig",
    "PolicyGradientConfig",
    "RelationalConfig",
    "RibbonConfig",
    "SFTConfig",
    "TPAConfig",
    "distill",
    "load",
]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    if name.endswith("Config"):
        losses = import_module("align_ti.losses.registry").LOSSES.values()
        for config in (loss.Config for loss in losses):
            if config.__name__ == name:
                return config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
