"""Main pass and candidates of a model in one run of its layers, for a packed row and a model without gradients.

The candidates are further rows behind the main path's: the products of each layer run over both at once, attention runs
for each in its own way, and nothing is kept of a layer.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from align_ti.attention.interface import (
    AttentionCapture,
    RibbonAttention,
    anything_4d,
    require_align_ti_attention,
)
from align_ti.attention.maps import MapRequest
from align_ti.attention.packing import PackedAttention
from align_ti.candidates.layout import CandidateLayout


class JoinedStates(NamedTuple):
    """Last hidden states: ``main [1, T, D]``, ``candidates [C, D]`` in the layout's order; and the attention maps,
    layer -> ``[1, T]``."""

    main: Tensor
    candidates: Tensor
    maps: dict[int, Tensor]


class MainAndCandidates:
    """Attention of a packed row whose last columns are candidates.

    Args:
        main: Attention of the samples.
        ribbon: Attention of the candidates to the samples and to themselves.
        length: Columns of the samples, ``T``.
    """

    def __init__(self, main: PackedAttention, ribbon: RibbonAttention, length: int) -> None:
        self.main = main
        self.ribbon = ribbon
        self.length = length

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float) -> Tensor:
        """See ``PackedAttention``; ``T + C`` columns."""
        (query, own_query), (key, own_key), (value, own_value) = (
            (tensor[:, :, : self.length], tensor[0, :, self.length :]) for tensor in (query, key, value)
        )
        states = self.main(query, key, value, scaling, dropout)
        candidates = self.ribbon(own_query, own_key, own_value, key, value, scaling, dropout)
        return torch.cat([states, candidates[None]], dim=1)


@torch.no_grad()
def joined_pass(
    decoder: PreTrainedModel,
    inputs_embeds: Tensor,
    position_ids: Tensor,
    layout: CandidateLayout,
    main: PackedAttention,
    ribbon: RibbonAttention,
    maps: MapRequest | None = None,
) -> JoinedStates:
    """Run a packed row and its candidates.

    Args:
        decoder: The base model (``model.model``), with the ``align_ti`` attention.
        inputs_embeds: ``[1, T, D]``.
        position_ids: Long ``[1, T]``.
        layout: The candidates.
        main: Attention of the row.
        ribbon: Attention of the candidates.
        maps: Attention maps to record of the row.

    Raises:
        InputError: The decoder uses another attention.
    """
    require_align_ti_attention(decoder)
    length, count = inputs_embeds.shape[1], len(layout)
    capture = None
    if maps is not None:  # no instruction and no real token among the candidates
        instruction, real = (pad(mask, (0, count)) for mask in (maps.instruction_mask, maps.attention_mask))
        capture = AttentionCapture(maps=MapRequest(maps.layers, instruction, real, maps.spans))
    drawn = decoder.get_input_embeddings()(layout.token[None]).to(inputs_embeds.dtype)
    hidden = decoder(
        inputs_embeds=torch.cat([inputs_embeds, drawn], dim=1),
        attention_mask=anything_4d(layout.token),
        position_ids=torch.cat([position_ids, layout.position_id[None]], dim=1),
        use_cache=False,
        capture=capture,
        packed=MainAndCandidates(main, ribbon, length),
    ).last_hidden_state
    recorded = {} if capture is None else {layer: found[:, :length] for layer, found in capture.maps.items()}
    return JoinedStates(hidden[:, :length], hidden[0, length:], recorded)
