"""The ribbon with PyTorch's attention and a mask: runs everywhere, and is the reference for the other backends."""

from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from align_ti.attention.ribbon.geometry import RibbonGeometry, SampleSpan
from align_ti.transfer import send

BLOCK = 128
"""Candidates of one sample per call: the keys of a call are the prefix and the own keys of the block's candidates."""


class SdpaRibbon:
    """Runs sample by sample, a block of candidates at a time, over exactly the keys they need.

    Query heads that share a key head are arranged as rows, so keys are never repeated and every SDPA kernel can be
    used. Blocks keep the cost linear in the number of candidates.

    The masks are additive: PyTorch would convert boolean masks to additive ones in every layer, and keep each for the
    backward pass.
    """

    def __init__(self, geometry: RibbonGeometry):
        self.blocks = [
            replace(span, candidates=min(BLOCK, span.candidates - first))
            for span in geometry.spans
            for first in range(0, span.candidates, BLOCK)
        ]
        self.candidates = [block.candidates for block in self.blocks]
        limits = send(geometry.limits, geometry.device).split(self.candidates)
        self.masks = [self._mask(block, mine) for block, mine in zip(self.blocks, limits, strict=True)]

    def _mask(self, block: SampleSpan, limits: Tensor) -> Tensor:
        """``[candidates, keys + candidates]``: 0 for the prefix before each limit and the candidate itself."""
        columns = torch.arange(block.start, block.stop, device=limits.device)
        own = torch.eye(block.candidates, dtype=torch.bool, device=limits.device)
        seen = torch.cat([columns < limits[:, None], own], dim=1)
        return torch.zeros_like(seen, dtype=torch.float32).masked_fill_(~seen, -torch.inf)

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
        groups = len(query) // len(key)
        if self.masks[0].dtype != query.dtype or len(self.masks[0]) != groups * self.candidates[0]:  # the first layer
            self.masks = [
                mask[:size].to(query.dtype).repeat(groups, 1)
                for mask, size in zip(self.masks, self.candidates, strict=True)
            ]
        queries, keys, values = (tensor.split(self.candidates, dim=1) for tensor in (query, key, value))
        prefix_keys, prefix_values = prefix_key.unbind(0), prefix_value.unbind(0)
        outputs = []
        for index, (block, mask) in enumerate(zip(self.blocks, self.masks, strict=True)):
            seen = slice(block.start, block.stop)
            # Query heads of a key head become rows, so the mask repeats per group and keys need no copy.
            output = scaled_dot_product_attention(
                rearrange(queries[index], "(kv g) c d -> 1 kv (g c) d", g=groups),
                torch.cat([prefix_keys[block.row][:, seen], keys[index]], dim=1)[None],
                torch.cat([prefix_values[block.row][:, seen], values[index]], dim=1)[None],
                attn_mask=mask,
                dropout_p=dropout,
                scale=scaling,
            )
            outputs.append(rearrange(output, "1 kv (g c) d -> c (kv g) d", g=groups))
        return torch.cat(outputs)
