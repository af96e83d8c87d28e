"""The ribbon through PyTorch's attention with a boolean mask: runs everywhere, and is what others must equal."""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from align_ti.ribbon.geometry import RibbonGeometry, SampleSpan


class SdpaRibbon:
    """Sample by sample over exactly the keys it needs.

    Query heads that share a key head are laid along the rows, so keys are never repeated and every SDPA
    kernel can be used.
    """

    def __init__(self, geometry: RibbonGeometry):
        self.geometry = geometry
        self.candidates = [span.candidates for span in geometry.spans]
        limits = geometry.limits.split(self.candidates)
        self.masks = [self._mask(span, mine) for span, mine in zip(geometry.spans, limits, strict=True)]

    def _mask(self, span: SampleSpan, limits: Tensor) -> Tensor:
        """Bool ``[groups * candidates, keys + candidates]``: the prefix before each limit, and the candidate itself."""
        columns = torch.arange(span.start, span.stop, device=limits.device)
        own = torch.eye(span.candidates, dtype=torch.bool, device=limits.device)
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
        queries, keys, values = (tensor.split(self.candidates, dim=1) for tensor in (query, key, value))
        prefix_keys, prefix_values = prefix_key.unbind(0), prefix_value.unbind(0)
        outputs = []
        for index, (span, mask) in enumerate(zip(self.geometry.spans, self.masks, strict=True)):
            if not span.candidates:
                continue
            seen = slice(span.start, span.stop)
            output = scaled_dot_product_attention(
                rearrange(queries[index], "(kv g) c d -> 1 kv (g c) d", g=groups),
                torch.cat([prefix_keys[span.row][:, seen], keys[index]], dim=1)[None],
                torch.cat([prefix_values[span.row][:, seen], values[index]], dim=1)[None],
                attn_mask=mask,
                dropout_p=dropout,
                scale=scaling,
            )
            outputs.append(rearrange(output, "1 kv (g c) d -> c (kv g) d", g=groups))
        return torch.cat(outputs)
