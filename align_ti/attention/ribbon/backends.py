"""The attention backends of the candidate pass by name, and which of them run on this machine.

To add a backend, add it to ``BACKENDS`` and test that it equals ``sdpa``.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from align_ti.attention.interface import RibbonAttention
from align_ti.attention.ribbon.flash import FlashRibbon
from align_ti.attention.ribbon.flex import FlexRibbon, why_not_flex
from align_ti.attention.ribbon.geometry import RibbonGeometry
from align_ti.attention.ribbon.sdpa import SdpaRibbon
from align_ti.attention.varlen import why_not_varlen
from llava.errors import InputError


class Backend(NamedTuple):
    """``make`` prepares a candidate pass; ``why_not`` returns why the backend cannot run on this machine, or None."""

    make: Callable[[RibbonGeometry], RibbonAttention]
    why_not: Callable[[], str | None]


BACKENDS: Mapping[str, Backend] = {
    "flash": Backend(FlashRibbon, why_not_varlen),
    "flex": Backend(FlexRibbon, why_not_flex),
    "sdpa": Backend(SdpaRibbon, lambda: None),
}
HALF = (torch.bfloat16, torch.float16)


def attention_dtype(like: Tensor) -> torch.dtype:
    """The dtype in which attention on tensors like this one runs: autocast's dtype if autocast is on."""
    device = like.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else like.dtype


def resolve_backend(name: str = "auto", dtype: torch.dtype = torch.bfloat16) -> str:
    """The backend to use: ``auto`` is ``flash`` for half precision where it runs, otherwise ``sdpa``.

    Args:
        name: ``auto`` or a name in ``BACKENDS``.
        dtype: Data type of keys and values.

    Raises:
        InputError: The backend is unknown or not available; the message lists the available ones.
    """
    reasons = {key: backend.why_not() for key, backend in BACKENDS.items()}
    if dtype not in HALF:
        reasons["flash"] = reasons["flash"] or f"FlashAttention needs bfloat16 or float16, the model runs in {dtype}"
    available = [key for key, reason in reasons.items() if reason is None]
    if name == "auto":
        return "flash" if "flash" in available else "sdpa"
    if name not in BACKENDS:
        raise InputError(f"ribbon backend {name!r} is unknown; available names: auto, {', '.join(sorted(BACKENDS))}")
    if name not in available:
        raise InputError(
            f"ribbon backend {name!r} is not available: {reasons[name]}. Here: auto, {', '.join(available)}"
        )
    return name


def ribbon_attention(
    geometry: RibbonGeometry, backend: str = "auto", dtype: torch.dtype = torch.bfloat16
) -> RibbonAttention:
    """The attention of a candidate pass.

    Args:
        geometry: Its samples and limits.
        backend: See ``resolve_backend``.
        dtype: Data type of keys and values.
    """
    return BACKENDS[resolve_backend(backend, dtype)].make(geometry)
