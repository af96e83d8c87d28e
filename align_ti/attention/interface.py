"""The attention implementation ``"align_ti"``: standard SDPA with hooks to read and to replace it.

Registered with transformers under that name, so it is selected like any other (``attn_implementation="align_ti"`` or
``use_align_ti_attention``). Keyword arguments to ``decoder(...)``, which are passed through its layers, change what it
does:

- ``capture``: an ``AttentionCapture`` that records keys and values, or attention maps, while SDPA runs;
- ``ribbon``: a ``RibbonPass`` that computes the attention of a candidate pass instead of SDPA;
- ``packed``: a ``PackedAttention`` that does so for a row of samples without padding.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from align_ti.attention.maps import MapRequest, mean_instruction_attention
from align_ti.attention.packing import PackedAttention
from llava.errors import InputError
from llava.model.protocol import VisionLanguageModel

NAME = "align_ti"


class AttentionCapture:
    """Keys, values and attention maps recorded in one forward pass of a decoder, by layer.

    A layer is recorded only the first time it runs: (non-reentrant) gradient checkpointing calls it again in the
    backward pass. Use a new object for every pass.

    Args:
        keep_prefix: Keep keys and values, with positions applied, in the autograd graph.
        maps: Instruction-to-vision maps to record, if any.

    Attributes:
        keys, values: Layer -> ``[B, H_kv, S, D]``.
        in_graph: Whether all keys and values were recorded with gradients enabled.
        maps: Layer -> ``[B, S]``, see ``mean_instruction_attention``.
    """

    def __init__(self, keep_prefix: bool = False, maps: MapRequest | None = None):
        self.keep_prefix = keep_prefix
        self.request = maps
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.in_graph = True
        self.maps: dict[int, Tensor] = {}

    def release(self) -> None:
        """Free the keys and values; the maps stay."""
        self.keys.clear()
        self.values.clear()

    def record(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> None:
        """Called by the attention function of each layer."""
        # Gradient checkpointing runs a layer again in the backward pass: keep what the forward pass recorded.
        if self.keep_prefix and layer not in self.keys:
            self.keys[layer], self.values[layer] = key, value
            self.in_graph &= torch.is_grad_enabled()
        if self.request is not None and layer in self.request.layers and layer not in self.maps:
            request = self.request
            self.maps[layer] = mean_instruction_attention(
                query, key, request.instruction_mask, request.attention_mask, scaling, request.spans
            )


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
    """Argument of ``decoder(..., ribbon=...)``: the cached prefix by layer, and the attention that reads it."""

    keys: Mapping[int, Tensor]
    values: Mapping[int, Tensor]
    attention: RibbonAttention

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float
    ) -> Tensor:
        """Packed candidates ``[1, H, C, D]`` -> ``[1, C, H, D]``."""
        prefix_key, prefix_value = self.keys[layer], self.values[layer]
        return self.attention(query[0], key[0], value[0], prefix_key, prefix_value, scaling, dropout)[None]


def align_ti_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    capture: AttentionCapture | None = None,
    ribbon: RibbonPass | None = None,
    packed: PackedAttention | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer as transformers calls it: ``[B, H, S, D]`` in, ``[B, S, H, D]`` out."""
    if query.dtype != value.dtype:
        # Under autocast, RoPE multiplies queries and keys by float32 cosines. All attention below is in one dtype.
        query, key = query.to(value.dtype), key.to(value.dtype)
    if capture is not None or ribbon is not None or packed is not None:
        _refuse_sliding_window(module)
    if ribbon is not None:
        return ribbon.attend(_layer(module), query, key, value, scaling, dropout), None
    if capture is not None:
        capture.record(_layer(module), query, key, value, scaling)
    if packed is not None:
        return packed(query, key, value, scaling, dropout), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)


# transformers keeps implementations by name; the mask function must be registered under the same name,
# or layers would get no mask and padding would be attended to.
AttentionInterface.register(NAME, align_ti_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def use_align_ti_attention(model: PreTrainedModel | VisionLanguageModel) -> None:
    """Switch a model's language layers to this attention.

    Raises:
        InputError: The model's attention implementation cannot be changed.
    """
    model.set_attn_implementation(NAME)
    if not uses_align_ti_attention(model):
        raise InputError(
            f"{type(model).__name__} runs {model.config._attn_implementation!r} attention and cannot be "
            f"switched to {NAME!r}; load it with attn_implementation={NAME!r}"
        )


def uses_align_ti_attention(model: PreTrainedModel | VisionLanguageModel) -> bool:
    """Whether the model's layers run this attention."""
    return model.config._attn_implementation == NAME


def require_align_ti_attention(model: PreTrainedModel | VisionLanguageModel) -> None:
    """Raise ``InputError`` unless ``capture`` and ``ribbon`` will be honoured by the model's layers."""
    if not uses_align_ti_attention(model):
        raise InputError(
            f"{type(model).__name__} runs {model.config._attn_implementation!r} attention; this needs "
            f"{NAME!r}: call align_ti.attention.interface.use_align_ti_attention(model) first"
        )


def anything_4d(like: Tensor) -> Tensor:
    """A placeholder boolean 4D mask: transformers passes a 4D mask on to the layers unchanged instead of building its
    own."""
    return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=like.device)


def _layer(module: nn.Module) -> int:
    return int(module.layer_idx)  # type: ignore[arg-type]


def _refuse_sliding_window(module: nn.Module) -> None:
    if getattr(module, "sliding_window", None) is not None:
        raise InputError(
            f"layer {_layer(module)} uses a sliding window of {module.sliding_window} tokens; "
            "candidate passes and attention maps need full attention: set use_sliding_window=False"
        )
