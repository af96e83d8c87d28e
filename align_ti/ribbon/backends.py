"""Attention of a candidate pass: packed candidates against their samples' kept keys and values.

A backend is a function from a ``RibbonGeometry`` to a ``RibbonAttention``; add one to ``BACKENDS`` under
its name, with a test that it equals ``sdpa``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from align_ti.ribbon.layout import CandidateLayout
from llava.errors import InputError


@dataclass(frozen=True)
class SampleSpan:
    """One sample's share of a candidate pass: ``rows`` candidates over columns ``start`` to ``stop``."""

    sample: int
    rows: int
    start: int
    stop: int


@dataclass(frozen=True)
class RibbonGeometry:
    """Who sees what in a candidate pass.

    Attributes:
        spans: one a sample of the batch, in order; ``rows`` may be 0.
        limits: long ``[C]``; a candidate sees its sample's columns from ``start`` up to here, and itself.
        groups: query heads a key head.
    """

    spans: tuple[SampleSpan, ...]
    limits: Tensor
    groups: int


class RibbonAttention(Protocol):
    """Attention of one layer of a candidate pass."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        prefix_key: Tensor,
        prefix_value: Tensor,
        scaling: float | None,
        dropout: float,
    ) -> Tensor:
        """``query [H, C, D]``, own ``[H_kv, C, D]``, prefix ``[B, H_kv, S, D]`` -> ``[C, H, D]``."""
        ...


@dataclass(frozen=True)
class RibbonPass:
    """Handed to ``decoder(..., ribbon=...)``: the kept prefix by layer, and the attention that reads it."""

    keys: Mapping[int, Tensor]
    values: Mapping[int, Tensor]
    attention: RibbonAttention

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float
    ) -> Tensor:
        """Packed candidates ``[1, H, C, D]`` -> ``[1, C, H, D]``."""
        prefix_key, prefix_value = self.keys[layer], self.values[layer]
        return self.attention(query[0], key[0], value[0], prefix_key, prefix_value, scaling, dropout)[None]


class SdpaRibbon:
    """PyTorch's attention with a boolean mask, sample by sample over exactly the keys it needs.

    Query heads that share a key head are laid along the rows, so keys are never repeated and every SDPA
    kernel can be used.
    """

    def __init__(self, geometry: RibbonGeometry):
        self.geometry = geometry
        self.rows = [span.rows for span in geometry.spans]
        limits = geometry.limits.split(self.rows)
        self.masks = [self._mask(span, mine) for span, mine in zip(geometry.spans, limits, strict=True)]

    def _mask(self, span: SampleSpan, limits: Tensor) -> Tensor:
        """Bool ``[groups * rows, keys + rows]``: the prefix before each limit, and the candidate itself."""
        columns = torch.arange(span.start, span.stop, device=limits.device)
        own = torch.eye(span.rows, dtype=torch.bool, device=limits.device)
        return torch.cat([columns < limits[:, None], own], dim=1).repeat(self.geometry.groups, 1)

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        prefix_key: Tensor,
        prefix_value: Tensor,
        scaling: float | None,
        dropout: float,
    ) -> Tensor:
        """See ``RibbonAttention``."""
        groups = self.geometry.groups
        queries, keys, values = (tensor.split(self.rows, dim=1) for tensor in (query, key, value))
        prefix_keys, prefix_values = prefix_key.unbind(0), prefix_value.unbind(0)
        outputs = []
        for index, (span, mask) in enumerate(zip(self.geometry.spans, self.masks, strict=True)):
            if not span.rows:
                continue
            seen = slice(span.start, span.stop)
            output = scaled_dot_product_attention(
                queries[index].reshape(1, -1, groups * span.rows, query.shape[-1]),
                torch.cat([prefix_keys[index][:, seen], keys[index]], dim=1)[None],
                torch.cat([prefix_values[index][:, seen], values[index]], dim=1)[None],
                attn_mask=mask,
                dropout_p=dropout,
                scale=scaling,
            )
            outputs.append(output.reshape(query.shape[0], span.rows, value.shape[-1]))
        return torch.cat(outputs, dim=1).transpose(0, 1)


BACKENDS: Mapping[str, Callable[[RibbonGeometry], RibbonAttention]] = {"sdpa": SdpaRibbon}


def resolve_backend(name: str = "auto") -> str:
    """The backend to use: ``auto`` is the fastest that runs here (today: ``sdpa``).

    Raises:
        InputError: the backend is unknown or not available; the message lists those that are.
    """
    if name == "auto":
        return "sdpa"
    if name not in BACKENDS:
        raise InputError(f"ribbon backend {name!r} is not available; there are: auto, {', '.join(BACKENDS)}")
    return name


def ribbon_geometry(layout: CandidateLayout, attention_mask: Tensor, groups: int) -> RibbonGeometry:
    """Work out each sample's rows and keys.

    Args:
        layout: the candidates, in the order of their samples.
        attention_mask: bool ``[B, S]``; the real tokens of a sample are one block.
        groups: query heads a key head.

    Raises:
        InputError: padding inside a sample.
    """
    mask = attention_mask.long()
    batch = len(mask)
    starts = mask.argmax(1)
    stops = starts + mask.sum(1)
    if not torch.equal(mask.cumsum(1).argmax(1) + 1, stops):
        raise InputError("attention_mask has padding between real tokens; expected it on one side only")
    rows = torch.bincount(layout.sample, minlength=batch)
    furthest = starts.scatter_reduce(0, layout.sample, layout.limit, "amax")
    numbers = torch.stack([rows, starts, furthest], dim=1).tolist()
    spans = tuple(SampleSpan(sample, *row) for sample, row in enumerate(numbers))
    return RibbonGeometry(spans, layout.limit, groups)
