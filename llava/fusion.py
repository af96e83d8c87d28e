"""Fusing elementwise work with ``torch.compile``: where it runs, and by what rule it is chosen."""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

logger = logging.getLogger(__name__)

TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 2e-3, torch.float32: 1e-4}
"""How far a compiled function's result may be from the plain one's, relative to its size, by data type."""


@cache
def fuse(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` through ``torch.compile``, for tensors of any size; compiled once for each kind of inputs."""
    # Teacher and student, with and without gradients, share a function: the limit of 8 is soon reached.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    return torch.compile(function, dynamic=True)


def short_reason(error: Exception) -> str:
    """The first line of a compiler's error, at most 200 characters; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def why_not_fused(device: torch.device) -> str | None:
    """Why ``torch.compile`` does not run for a device on this machine; None if it does."""
    return _why_not(device.type)


def fused_where_fast(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """``function``, fused on a GPU where ``torch.compile`` runs: there each of its operations is a launch."""
    return checked(function) if device.type == "cuda" and why_not_fused(device) is None else function


@cache
def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """``fuse(function)``, which is compared with ``function`` the first time it gets inputs of these data types; where
    they differ, or compiling fails, a warning says so, and ``function`` runs from then on."""
    return _Checked(function)


class _Checked:
    """See ``checked``."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.fused = fuse(function)
        self.agrees: dict[tuple[Any, ...], bool] = {}

    def __call__(self, *arguments: Any) -> Any:
        kinds = tuple(leaf.dtype for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor))
        if kinds not in self.agrees:
            self.agrees[kinds] = self.compare(arguments)
        return (self.fused if self.agrees[kinds] else self.function)(*arguments)

    @torch.no_grad()
    def compare(self, arguments: tuple[Any, ...]) -> bool:
        """Whether both functions give the same."""
        # Products of half precision inside a function round its float32 results too.
        kinds = {leaf.dtype for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)}
        if torch.is_autocast_enabled("cuda"):
            kinds.add(torch.get_autocast_dtype("cuda"))
        inputs = tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, arguments)
        try:
            compiled = tree_leaves(self.fused(*inputs))
        except Exception as failure:  # whatever a compiler may raise
            logger.warning(
                "torch.compile fails for %s (%s): it is not used there", self.function.__name__, short_reason(failure)
            )
            return False
        for found, expected in zip(compiled, tree_leaves(self.function(*inputs)), strict=True):
            same = torch.equal(found.isfinite(), expected.isfinite())
            ours, theirs = (torch.nan_to_num(tensor.double(), posinf=0.0, neginf=0.0) for tensor in (found, expected))
            error = float((ours - theirs).norm() / theirs.norm().clamp(min=torch.finfo(torch.float32).tiny))
            if not same or not error <= max(TOLERANCE.get(kind, 1e-9) for kind in {*kinds, expected.dtype}):
                logger.warning(
                    "torch.compile gives another result for %s than PyTorch without it (relative error %.1e, in %s): "
                    "it is not used there",
                    self.function.__name__,
                    error,
                    expected.dtype,
                )
                return False
        return True


def _add_one(values: Tensor) -> Tensor:
    return values + 1


@cache
def _why_not(device: str) -> str | None:
    try:
        fuse(_add_one)(torch.zeros(8, device=device))
    except Exception as error:  # whatever a compiler may raise
        reason = short_reason(error)
        logger.info("torch.compile does not run for %s (%s)", device, reason)
        return reason
    return None
