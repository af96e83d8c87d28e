"""The ribbon with FlexAttention: one call for all samples; blocks that are fully masked are skipped."""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from align_ti.attention.ribbon.geometry import RibbonGeometry
from align_ti.attention.varlen import refuse_dropout
from align_ti.transfer import send


def why_not_flex() -> str | None:
    """Why FlexAttention cannot train on this machine; None if it can."""
    return None if torch.cuda.is_available() else "FlexAttention has a backward pass on CUDA devices only"


_compiled = torch.compile(flex_attention, dynamic=True)


class FlexRibbon:
    """Keys are the columns that some sample's candidates attend to, followed by the candidates' own keys."""

    def __init__(self, geometry: RibbonGeometry):
        device = geometry.device
        spans = [span for span in geometry.spans if span.candidates]
        counts = torch.tensor([span.candidates for span in spans], device=device)
        lengths = torch.tensor([span.stop - span.start for span in spans], device=device)
        numbers = torch.arange(len(spans), device=device)
        query_span = numbers.repeat_interleave(counts)
        key_span = numbers.repeat_interleave(lengths)
        starts = torch.tensor([span.start for span in spans], device=device)
        rows = torch.tensor([span.row for span in spans], device=device)
        column = torch.arange(len(key_span), device=device) - (lengths.cumsum(0) - lengths - starts)[key_span]
        self.columns = rows[key_span] * geometry.length + column
        prefix, candidates = len(self.columns), len(query_span)
        limits = send(geometry.limits, device)
        # The candidates' own keys have no span and no column: pad both tables, so that the mask can index them by any
        # key.
        none = torch.full((candidates,), -1, device=device)
        key_span, column = torch.cat([key_span, none]), torch.cat([column, none])

        def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            before = (key_span[key] == query_span[query]) & (column[key] < limits[query])
            return before | (key == query + prefix)

        self.mask = create_block_mask(visible, None, None, candidates, prefix + candidates, device=device)

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
        """See ``RibbonAttention``.

        Raises:
            InputError: Attention dropout is set; FlexAttention does not support it.
        """
        refuse_dropout("the flex ribbon", dropout)
        seen_key, seen_value = (
            rearrange(tensor, "b h s d -> h (b s) d")[:, self.columns] for tensor in (prefix_key, prefix_value)
        )
        attend = _compiled if query.is_cuda else flex_attention
        output = attend(
            query[None],
            torch.cat([seen_key, key], dim=1)[None],
            torch.cat([seen_value, value], dim=1)[None],
            block_mask=self.mask,
            scale=scaling,
            enable_gqa=True,
        )
        return rearrange(output, "1 h c d -> c h d")
