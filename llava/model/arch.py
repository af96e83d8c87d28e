"""Mixins that turn a transformers language model into a vision-language model.

``LlavaModelMixin`` adds a vision tower and a projector to the decoder, ``LlavaForCausalLMMixin`` adds the splice (from
``VisionMixin``), the loss, generation and loading to the model with a head. A new language model is a short file that
combines them with transformers' classes; see ``llava/model/language``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedConfig
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import InputError
from llava.model.checkpoint import KEY_MAPPING, TOWER_KEYS
from llava.model.config import VisionSettings
from llava.model.head import LanguageHead
from llava.model.loss import next_token_loss
from llava.model.projector import build_projector
from llava.model.splice import position_ids_from_mask
from llava.model.vision import VisionMixin
from llava.model.vision_tower import VisionTower, anchor_tower, build_vision_tower
from llava.model.weight_files import check_weight_files

logger = logging.getLogger(__name__)


class LlavaModelMixin:
    """Mixin placed before a transformers decoder: adds ``vision_tower`` (its weights are loaded later) and
    ``mm_projector``."""

    config: PreTrainedConfig

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        if VisionSettings.from_config(config).tower:
            anchor_tower(config, config.name_or_path)
            self.vision_tower = build_vision_tower(config, delay_load=True)
            self.mm_projector = build_projector(config)

    def get_vision_tower(self) -> VisionTower | None:
        """The tower, or ``None`` for a model without vision."""
        return getattr(self, "vision_tower", None)


class LlavaForCausalLMMixin(VisionMixin):
    """Mixin placed before a transformers causal language model whose ``.model`` has ``LlavaModelMixin``."""

    lm_head: LanguageHead
    _keys_to_ignore_on_load_unexpected: Any = [TOWER_KEYS]

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embedding."""
        return self.model.embed_tokens

    # Language

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        images: Tensor | Sequence[Tensor] | None = None,
        image_sizes: object = None,
        instruction_mask: Tensor | None = None,
        vision_features: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        step: Callable[[Any], Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """One pass of the language model over text and images.

        Args:
            input_ids: ``[B, T]`` with -200 for each image.
            attention_mask: ``[B, T]`` padding mask, or any mask that the language model accepts with ``inputs_embeds``.
            position_ids: ``[B, S]``; by default, and always if images are spliced in, computed from the padding mask.
            past_key_values: KV cache, as in transformers.
            use_cache: As in transformers, but off by default while training.
            inputs_embeds: ``[B, S, D]``, instead of ``input_ids``; nothing is spliced in this case.
            labels: Aligned with the input (not shifted), -100 where there is no target.
            logits_to_keep: Number of last positions that get logits (0: all), or the positions ``[n]``.
            images: Images in reading order.
            image_sizes: Accepted for compatibility with LLaVA; not needed for one view per image.
            instruction_mask: Accepted so that a collated batch can be passed unchanged; not used.
            vision_features: Features of the images, if already computed.
            num_items_in_batch: Number of supervised tokens in the global batch, used as the loss denominator if given.
            step: Called inside this forward as ``step(model)``; its result is returned unchanged. DDP and DeepSpeed
                then see one forward of the engine while a training objective runs several passes.
            kwargs: Passed to the decoder, down to the attention function.

        Returns:
            ``CausalLMOutputWithPast``. When training with labels, ``logits`` is ``None``: they are computed only at
                supervised positions. In evaluation they are complete, and the loss is returned as well.

        Raises:
            InputError: Markers and images do not match, or images are given with ``inputs_embeds`` or a 4D mask.
        """
        if step is not None:
            return step(self)
        decoding = past_key_values is not None and past_key_values.get_seq_length() > 0
        padding_mask = isinstance(attention_mask, Tensor) and attention_mask.dim() == 2
        mergeable = input_ids is not None and not decoding and (padding_mask or attention_mask is None)
        if images is not None and not mergeable and not decoding:
            raise InputError(
                "images can be spliced into input_ids with a padding mask [B, T] (or none) only; with "
                "inputs_embeds or another mask, call splice_inputs() first"
            )
        if mergeable and self._must_splice(input_ids, images, vision_features):
            assert input_ids is not None
            batch = self.splice_inputs(
                input_ids, attention_mask, labels, images=images, vision_features=vision_features
            )
            input_ids, inputs_embeds, position_ids = None, batch.inputs_embeds, batch.position_ids
            attention_mask = batch.attention_mask
            labels = batch.labels if labels is not None else None
        elif padding_mask and position_ids is None and not decoding:
            position_ids = position_ids_from_mask(attention_mask)
        if use_cache is None and past_key_values is None and self.training:
            use_cache = False
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        loss, logits = None, None
        if labels is not None:
            loss, count = next_token_loss(hidden, labels, self.lm_head, num_items_in_batch)
            if count == 0:
                self._warn_nothing_supervised()
        if labels is None or not self.training:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(hidden[:, kept])
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _must_splice(
        self, input_ids: Tensor | None, images: Tensor | Sequence[Tensor] | None, features: Tensor | None
    ) -> bool:
        if images is not None or features is not None or self.needs_vision_every_step():
            return True
        return input_ids is not None and bool((input_ids == IMAGE_TOKEN_INDEX).any())

    def _warn_nothing_supervised(self) -> None:
        if not getattr(self, "_warned_nothing_supervised", False):
            self._warned_nothing_supervised = True
            logger.warning("a batch has no supervised token: its loss is 0; check labels and model_max_length")

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        images: Tensor | Sequence[Tensor] | None = None,
        image_sizes: object = None,
        attention_mask: Tensor | None = None,
        input_ids: Tensor | None = None,
        vision_features: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Continue a batch of prompts of different lengths, with or without images.

        The batch is padded on the left and positions are counted from the padding mask, so an answer does not depend on
        the rest of the batch.

        Args:
            inputs: Prompt ids ``[B, T]`` with -200 for each image; ``input_ids`` is the same.
            images: Images in reading order.
            image_sizes: Accepted for compatibility with LLaVA, not needed.
            attention_mask: ``[B, T]``, non-zero at tokens, its zeros on either side.
            vision_features: Features of the images, if already computed.
            kwargs: As in transformers' ``generate``.

        Returns:
            Only the new tokens, ``[B, new]``, or a dictionary with ``return_dict_in_generate``.

        Raises:
            InputError: Both or neither of ``inputs`` and ``input_ids`` are given, or markers and images do not match.
        """
        if "inputs_embeds" in kwargs:
            return super().generate(attention_mask=attention_mask, **kwargs)  # type: ignore[misc]
        if (inputs is None) == (input_ids is None):
            raise InputError("generate() needs the prompt's ids once, as `inputs` or as `input_ids`")
        ids = inputs if inputs is not None else input_ids
        assert ids is not None
        batch = self.splice_inputs(
            ids, attention_mask, images=images, vision_features=vision_features, padding_side="left"
        )
        kwargs.pop("position_ids", None)
        return super().generate(  # type: ignore[misc]
            inputs_embeds=batch.inputs_embeds, attention_mask=batch.attention_mask.long(), **kwargs
        )

    # Loading and saving

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *args: Any, load_tower: bool = True, **kwargs: Any
    ) -> Any:
        """Load a checkpoint of this family, or the plain language model, with LLaVA's or the authors' weight names.

        The vision tower is loaded afterwards by its name in the config; if the checkpoint contains weights for it
        (LLaVA's ``model.vision_tower.*``), they replace the tower's own.

        Args:
            pretrained_model_name_or_path: Folder or hub name.
            load_tower: Set to False if another model's tower will be shared.
            args, kwargs: As in transformers.

        Raises:
            InputError: The checkpoint is of another kind, weights are truncated, or the tower cannot be found.
        """
        check_weight_files(str(pretrained_model_name_or_path))
        kwargs.setdefault("key_mapping", KEY_MAPPING)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)  # type: ignore[misc]
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        tower = model.get_vision_tower()
        if load_tower and tower is not None:
            model.load_vision_tower()
            tower.load_carried(str(pretrained_model_name_or_path))
        return loaded

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save with LLaVA's weight names, without the vision tower's weights (the config names the tower)."""
        kwargs.setdefault("save_original_format", False)
        super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]
