"""The candidate pass over a shared prefix: only candidate rows run, against cached keys and values.

The main path never attends to candidates, so its keys and values are those of the plain forward pass. They are kept in
the autograd graph, so that the candidates' gradient flows back through them.
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from align_ti.attention.interface import AttentionCapture, RibbonPass, anything_4d, require_align_ti_attention
from align_ti.attention.ribbon.backends import ribbon_attention
from align_ti.attention.ribbon.geometry import RibbonGeometry
from align_ti.candidates.layout import CandidateLayout
from llava.errors import InputError


def candidate_pass(
    decoder: PreTrainedModel,
    prefix: AttentionCapture,
    layout: CandidateLayout,
    geometry: RibbonGeometry,
    backend: str = "auto",
) -> Tensor:
    """Run the candidates of a batch through a decoder whose main pass filled ``prefix``.

    Args:
        decoder: The base model (``model.model``), with the ``align_ti`` attention.
        prefix: Capture of this decoder's main pass over the same batch, with ``keep_prefix=True``.
        layout: The candidates.
        geometry: Their samples and limits; one object serves both models.
        backend: See ``resolve_backend``.

    Returns:
        Last hidden states after the final norm, ``[C, D]``, in the layout's order.

    Raises:
        InputError: The decoder uses another attention, the prefix was not kept, or it was kept without its graph
            although gradients are needed.
    """
    require_align_ti_attention(decoder)
    config = decoder.config
    if len(prefix.keys) != config.num_hidden_layers:
        raise InputError(
            f"the prefix has {len(prefix.keys)} layers, the decoder has {config.num_hidden_layers}: run "
            "the main pass of this decoder with capture=AttentionCapture(keep_prefix=True)"
        )
    if torch.is_grad_enabled() and not prefix.in_graph:
        raise InputError(
            "the keys and values of the main pass were kept without their graph, so the candidates' gradient through "
            "them would be lost. The cause is reentrant gradient checkpointing or torch.no_grad: enable checkpointing "
            'with {"use_reentrant": False}'
        )
    attention = ribbon_attention(geometry, backend, prefix.keys[0].dtype)
    # One row holds the candidates of all samples: they do not attend to each other, so only their own positions matter.
    output = decoder(
        inputs_embeds=decoder.get_input_embeddings()(layout.token[None]),
        attention_mask=anything_4d(layout.token),
        position_ids=layout.position_id[None],
        use_cache=False,
        ribbon=RibbonPass(prefix.keys, prefix.values, attention),
    )
    return output.last_hidden_state[0]
