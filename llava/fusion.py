"""Fusing elementwise work with ``torch.compile``: where it runs, and by what rule it is chosen."""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

logger = logging.getLogger(__name__)


@cache
def fuse(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` through ``torch.compile``, for tensors of any size; compiled once."""
    return torch.compile(function, dynamic=True)


def why_not_fused(device: torch.device) -> str | None:
    """Why ``torch.compile`` does not run for a device on this machine; None if it does."""
    return _why_not(device.type)


def fused_where_fast(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """``function``, fused on a GPU where ``torch.compile`` runs: there each of its operations is a launch."""
    return fuse(function) if device.type == "cuda" and why_not_fused(device) is None else function


def _add_one(values: torch.Tensor) -> torch.Tensor:
    return values + 1


@cache
def _why_not(device: str) -> str | None:
    try:
        fuse(_add_one)(torch.zeros(8, device=device))
    except Exception as error:  # whatever a compiler may raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        logger.info("torch.compile does not run for %s (%s)", device, reason)
        return reason
    return None
