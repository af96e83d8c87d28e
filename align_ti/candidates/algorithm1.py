"""The paper's Algorithm 1: response and candidates interleaved, one pass, a dense ribbon mask (its Fig. 9).

The candidates of ``y_k`` come right before it. This is the paper's method, kept for comparison; training uses the
shared prefix, which gives the same numbers at lower cost.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from align_ti.candidates.layout import CandidateLayout
from llava.errors import InputError


class RibbonSequence(NamedTuple):
    """Positions of all tokens in the interleaved batch ``[B, T]``.

    ``main [B, S]``: new column of each main-path column. ``candidate [C]``: new column of each candidate.
    ``position_ids [B, T]``. ``mask [B, 1, T, T]``: bool, True where the row attends to the column.
    """

    main: Tensor
    candidate: Tensor
    position_ids: Tensor
    mask: Tensor


class SinglePass(NamedTuple):
    """Last hidden states: ``main [B, S, D]``, ``candidates [C, D]`` in the layout's order."""

    main: Tensor
    candidates: Tensor


def ribbon_sequence(layout: CandidateLayout, attention_mask: Tensor, position_ids: Tensor) -> RibbonSequence:
    """Interleave main path and candidates and build the ribbon mask.

    Args:
        layout: The candidates, sorted by sample and limit.
        attention_mask: Bool ``[B, S]``.
        position_ids: Long ``[B, S]``.
    """
    batch, length = attention_mask.shape
    device = attention_mask.device
    rows = torch.bincount(layout.sample, minlength=batch)
    total = length + int(rows.max())
    columns = torch.arange(length, device=device)
    # Every column moves right by the number of candidates before or at it; a candidate's new column is its limit plus
    # the number of its sample's candidates before it.
    rank = torch.arange(len(layout), device=device) - (rows.cumsum(0) - rows)[layout.sample]
    at_limit = torch.zeros(batch, length, dtype=torch.long, device=device)
    at_limit.index_put_((layout.sample, layout.limit), torch.ones_like(layout.limit), accumulate=True)
    main = columns + at_limit.cumsum(1)
    candidate = layout.limit + rank

    samples = torch.arange(batch, device=device)[:, None]
    ids = torch.zeros(batch, total, dtype=torch.long, device=device)
    ids[samples, main] = position_ids
    ids[layout.sample, candidate] = layout.position_id
    # A row attends to the real main-path columns up to `last`, and to itself (padding too, so that no row is empty).
    last = torch.full((batch, total), -1, device=device)
    last[samples, main] = columns.expand(batch, -1)
    last[layout.sample, candidate] = layout.limit - 1
    column = torch.full((batch, total), total, device=device)
    column[samples, main] = torch.where(attention_mask.bool(), columns, total)
    mask = column[:, None, :] <= last[:, :, None]
    mask |= torch.eye(total, dtype=torch.bool, device=device)
    return RibbonSequence(main, candidate, ids, mask[:, None])


def single_pass(
    decoder: PreTrainedModel,
    inputs_embeds: Tensor,
    attention_mask: Tensor,
    position_ids: Tensor,
    layout: CandidateLayout,
) -> SinglePass:
    """Run main path and candidates together.

    Args:
        decoder: The base model (``model.model``) with ``sdpa`` or ``align_ti`` attention.
        inputs_embeds: ``[B, S, D]`` of the main path.
        attention_mask: Bool ``[B, S]``.
        position_ids: Long ``[B, S]``.
        layout: The candidates.

    Raises:
        InputError: The attention does not accept a boolean 4D mask.
    """
    implementation = decoder.config._attn_implementation
    if implementation not in ("sdpa", "align_ti"):
        raise InputError(f"Algorithm 1 needs sdpa or align_ti attention (boolean mask), found {implementation!r}")
    sequence = ribbon_sequence(layout, attention_mask, position_ids)
    batch, total = sequence.position_ids.shape
    samples = torch.arange(batch, device=inputs_embeds.device)[:, None]
    embeds = inputs_embeds.new_zeros(batch, total, inputs_embeds.shape[-1])
    embeds = embeds.index_put((samples, sequence.main), inputs_embeds)
    drawn = decoder.get_input_embeddings()(layout.token).to(embeds.dtype)
    embeds = embeds.index_put((layout.sample, sequence.candidate), drawn)
    hidden = decoder(
        inputs_embeds=embeds,
        attention_mask=sequence.mask,
        position_ids=sequence.position_ids,
        use_cache=False,
    ).last_hidden_state
    return SinglePass(hidden[samples, sequence.main], hidden[layout.sample, sequence.candidate])
