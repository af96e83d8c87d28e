"""What the rest of the project asks of a vision-language model: the seam for families of models beside LLaVA's.

Losses, inference, evaluation and the web page use nothing else of a model, so a class of another family that offers
this works with them as it is. The classes of ``llava.model.language`` do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

from llava.errors import InputError
from llava.model.splice import SplicedBatch
from llava.model.vision_tower import VisionTower


@runtime_checkable
class VisionLanguageModel(Protocol):
    """A causal language model that reads pictures as visual tokens among the text's tokens."""

    @property
    def config(self) -> PreTrainedConfig:
        """The configuration of the language model, with LLaVA's ``mm_*`` keys."""

    @property
    def generation_config(self) -> GenerationConfig:
        """How ``generate`` chooses and ends, unless told otherwise."""

    @property
    def training(self) -> bool:
        """Whether it is in training mode."""

    @property
    def device(self) -> torch.device:
        """Where it is; the token embedding's device if it is spread over several."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of its weights."""

    @property
    def model(self) -> PreTrainedModel:
        """The decoder. Called with ``inputs_embeds`` ``[B, S, D]``, ``attention_mask``, ``position_ids`` and
        ``use_cache``, it returns an object whose ``last_hidden_state`` is ``[B, S, D]`` after the final norm. Further
        keywords reach the attention function of every layer."""

    @property
    def lm_head(self) -> nn.Linear:
        """The head: logits ``[..., V]`` of hidden states ``[..., D]``."""

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding; its weight tells where the model is and in which type it computes."""

    def get_vision_tower(self) -> VisionTower | None:
        """What encodes pictures, and with it their preprocessing and number of visual tokens; None without vision."""

    def vision_features(self, images: Tensor | Sequence[Tensor] | None) -> Tensor:
        """Features ``[N, Nv, Dv]`` of N pictures in reading order, without gradient, before they become visual tokens.

        Raises:
            InputError: pictures of a wrong size.
        """

    def splice_inputs(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        instruction_mask: Tensor | None = None,
        images: Tensor | Sequence[Tensor] | None = None,
        vision_features: Tensor | None = None,
        padding_side: str | None = None,
    ) -> SplicedBatch:
        """The decoder's inputs for ids ``[B, T]`` with -200 for each picture; see ``SplicedBatch``.

        Args:
            input_ids: Token ids, -200 for each picture.
            attention_mask: ``[B, T]``, non-zero at tokens.
            labels: ``[B, T]``, -100 where there is no target.
            instruction_mask: ``[B, T]`` bool, True at the human's own words.
            images: Pictures in reading order.
            vision_features: Their features, where these are known already.
            padding_side: ``right`` or ``left``; the model's own choice if None.

        Raises:
            InputError: markers and pictures do not match.
        """

    def generate(self, **kwargs: Any) -> Any:
        """New tokens ``[B, new]`` after prompts; takes ``input_ids``, ``attention_mask``, ``images`` or
        ``vision_features``, and what transformers' ``generate`` does."""

    def set_attn_implementation(self, attn_implementation: str) -> None:
        """Choose the attention function of the decoder's layers, by its name in transformers' registry."""

    def num_parameters(self) -> int:
        """Number of weights, shared ones counted once."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """All weights, the vision tower's included."""

    def train(self, mode: bool = True) -> Any:
        """Switch training mode on or off."""

    def eval(self) -> Any:
        """Switch training mode off."""


def vision_tower_of(model: VisionLanguageModel) -> VisionTower:
    """A model's vision tower.

    Raises:
        InputError: it has none.
    """
    tower = model.get_vision_tower()
    if tower is None:
        raise InputError(f"the {type(model).__name__} has no vision tower; expected a vision-language checkpoint")
    return tower
