"""What turns a transformers language model into a vision-language model.

Two mixins: ``LlavaModelMixin`` gives the decoder a vision tower and a projector, ``LlavaForCausalLMMixin``
gives the model with a head the splice (from ``VisionMixin``), the loss, generation and loading. A new
language model is a short file that combines them with transformers' classes; see ``llava/model/language``.
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
    """Goes before a transformers decoder: adds ``vision_tower`` (weights come later), ``mm_projector``."""

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
    """Goes before a transformers causal language model whose ``.model`` has ``LlavaModelMixin``."""

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
        """One pass of the language model over text and pictures.

        Args:
            input_ids: ``[B, T]`` with -200 for each picture.
            attention_mask: ``[B, T]`` padding mask, or whatever the language model accepts with
                ``inputs_embeds``.
            position_ids: ``[B, S]``; counted from the padding mask if absent, and always so where pictures
                are spliced in.
            past_key_values: a cache, as in transformers.
            use_cache: As in transformers, but off by default while training.
            inputs_embeds: ``[B, S, D]``, instead of ``input_ids``: nothing is spliced then.
            labels: aligned with the input, -100 where there is no target; not shifted.
            logits_to_keep: how many of the last positions get logits (0: all), or the positions ``[n]``.
            images: pictures in reading order.
            image_sizes: accepted for LLaVA's callers; one view of a picture does not need it.
            instruction_mask: accepted so that a collated batch can be passed as it is; the language model's
                own pass does not need it.
            vision_features: features of the pictures, when already known.
            num_items_in_batch: supervised tokens of the global batch; the loss is their mean when given.
            step: run inside this forward as ``step(model)``, its result returned as it is. DDP and DeepSpeed
                then see one forward of the engine while a training objective runs several passes.
            kwargs: passed to the decoder, down to the attention function.

        Returns:
            ``CausalLMOutputWithPast``. While training with labels ``logits`` is ``None``: they are computed
            at supervised positions only. In evaluation they are complete, and the loss is there as well.

        Raises:
            InputError: markers and pictures do not match, or pictures come with ``inputs_embeds`` or a 4D
                mask.
        """
        if step is not None:
            return step(self)
        decoding = past_key_values is not None and past_key_values.get_seq_length() > 0
        padding_mask = isinstance(attention_mask, Tensor) and attention_mask.dim() == 2
        mergeable = input_ids is not None and not decoding and (padding_mask or attention_mask is None)
        if images is not None and not mergeable and not decoding:
            raise InputError(
                "pictures can be spliced into input_ids with a padding mask [B, T] (or none) only; with "
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
        """Continue prompts, with or without pictures, of different lengths in one batch.

        The batch is padded on the left and positions are counted from the padding mask, so that an answer
        does not depend on what else is in the batch.

        Args:
            inputs: prompt ids ``[B, T]`` with -200 for each picture; ``input_ids`` is the same.
            images: pictures in reading order.
            image_sizes: accepted for LLaVA's callers, not needed.
            attention_mask: ``[B, T]``, non-zero at tokens, its zeros on either side.
            vision_features: features of the pictures, when already known.
            kwargs: As in transformers' ``generate``.

        Returns:
            The new tokens only, ``[B, new]``, or what ``return_dict_in_generate`` asks for.

        Raises:
            InputError: both or none of the ids' names are given, or markers and pictures do not match.
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
        """Load a checkpoint of this family, or the plain language model, in LLaVA's or the authors' spelling.

        The vision tower is loaded afterwards by its name in the config; weights that the checkpoint carries
        for it (LLaVA's ``model.vision_tower.*``) then replace the tower's own.

        Args:
            pretrained_model_name_or_path: folder or hub name.
            load_tower: set to False when another model's tower will be shared.
            args, kwargs: As in transformers.

        Raises:
            InputError: a checkpoint of another kind, weights that are cut short, or a tower that cannot be found.
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
        """Save in LLaVA's spelling, without the vision tower's weights (the config names the tower)."""
        kwargs.setdefault("save_original_format", False)
        super().save_pretrained(save_directory, **kwargs)  # type: ignore[misc]
