"""The interface of a vision-language model that the rest of the project relies on: the seam for other model families.

Losses, inference, evaluation and the web page use nothing else of a model, so a class of another family that implements
this interface works with them unchanged. The classes in ``llava.model.language`` implement it.
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
    """A causal language model that reads images as visual tokens among the text tokens."""

    @property
    def config(self) -> PreTrainedConfig:
        """The configuration of the language model, with LLaVA's ``mm_*`` keys."""

    @property
    def generation_config(self) -> GenerationConfig:
        """The default sampling and stopping settings of ``generate``."""

    @property
    def training(self) -> bool:
        """Whether the model is in training mode."""

    @property
    def device(self) -> torch.device:
        """The model's device; the token embedding's device if the model is spread over several."""

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""

    @property
    def model(self) -> PreTrainedModel:
        """The decoder. Called with ``inputs_embeds`` ``[B, S, D]``, ``attention_mask``, ``position_ids`` and
        ``use_cache``, it returns an object whose ``last_hidden_state`` is ``[B, S, D]`` after the final norm. Further
        keywords are passed to the attention function of every layer."""

    @property
    def lm_head(self) -> nn.Linear:
        """The head: logits ``[..., V]`` of hidden states ``[..., D]``."""

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding; its weight has the model's device and dtype."""

    def get_vision_tower(self) -> VisionTower | None:
        """The image encoder, with its preprocessing and number of visual tokens; None without vision."""

    def vision_features(self, images: Tensor | Sequence[Tensor] | None) -> Tensor:
        """Features ``[N, Nv, Dv]`` of N images in reading order, without gradient, before the projector.

        Raises:
            InputError: Images have the wrong size.
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
        """The decoder's inputs for ids ``[B, T]`` with -200 for each image; see ``SplicedBatch``.

        Args:
            input_ids: Token ids, -200 for each image.
            attention_mask: ``[B, T]``, non-zero at tokens.
            labels: ``[B, T]``, -100 where there is no target.
            instruction_mask: ``[B, T]`` bool, True at the user's own words.
            images: Images in reading order.
            vision_features: Features of the images, if already computed.
            padding_side: ``right`` or ``left``; by default the model's own setting.

        Raises:
            InputError: Markers and images do not match.
        """

    def generate(self, **kwargs: Any) -> Any:
        """New tokens ``[B, new]`` after prompts; takes ``input_ids``, ``attention_mask``, ``images`` or
        ``vision_features``, and the arguments of transformers' ``generate``."""

    def set_attn_implementation(self, attn_implementation: str) -> None:
        """Set the attention function of the decoder's layers, by its name in transformers' registry."""

    def num_parameters(self) -> int:
        """Number of weights; shared ones count once."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """All weights, including the vision tower's."""

    def train(self, mode: bool = True) -> Any:
        """Switch training mode on or off."""

    def eval(self) -> Any:
        """Switch training mode off."""


def vision_tower_of(model: VisionLanguageModel) -> VisionTower:
    """A model's vision tower.

    Raises:
        InputError: It has none.
    """
    tower = model.get_vision_tower()
    if tower is None:
        raise InputError(f"the {type(model).__name__} has no vision tower; expected a vision-language checkpoint")
    return tower
