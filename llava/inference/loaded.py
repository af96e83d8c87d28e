"""A checkpoint loaded for talking: the model, its prompt template and where its answers end."""

import logging
from dataclasses import dataclass
from typing import Any

from llava.conversation import USUAL_TEMPLATES, Template, get_template
from llava.errors import InputError
from llava.flags import resolve_device
from llava.inference.end_of_turn import EndOfTurn
from llava.inference.generate import LoadedModel
from llava.mm_utils import get_model_name_from_path
from llava.model.builder import load_pretrained_model

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChatModel:
    """A model that can be talked to; holds nothing of any conversation, so conversations may share it.

    Attributes:
        loaded: The model, its tokenizer and its image processor.
        template: The prompt template it answers in.
        end: Where its answers end.
        path: Checkpoint folder or hub name it was loaded from; None if that is not known.
    """

    loaded: LoadedModel
    template: Template
    end: EndOfTurn
    path: str | None = None

    @classmethod
    def load(
        cls,
        path: str,
        base: str | None = None,
        *,
        template: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        attn_implementation: str | None = None,
        load_8bit: bool = False,
        load_4bit: bool = False,
    ) -> "ChatModel":
        """Load a checkpoint.

        Args:
            path: checkpoint folder or hub name.
            base: the language model that a projector-only checkpoint belongs to.
            template: prompt template; by default the one the checkpoint was tuned with.
            device: ``auto`` for the GPU if there is one.
            dtype: ``auto`` for bfloat16 on a GPU and float32 on a CPU.
            attn_implementation: As in transformers.
            load_8bit, load_4bit: quantise the language model with bitsandbytes.

        Raises:
            InputError: not a LLaVA checkpoint, or one that answers in no known chat template.
        """
        import torch

        device, dtype = resolve_device(device, dtype)
        name = get_model_name_from_path(path)
        parts = load_pretrained_model(
            path,
            base,
            name,
            device_map=device,
            torch_dtype=getattr(torch, dtype),
            attn_implementation=attn_implementation,
            load_8bit=load_8bit,
            load_4bit=load_4bit,
        )
        return cls.of(LoadedModel(*parts, model_id=name), template, path)

    @classmethod
    def of(cls, loaded: LoadedModel, template: str | None = None, path: str | None = None) -> "ChatModel":
        """A model that is already loaded, from ``path`` if that is known.

        Raises:
            InputError: an unknown template, or one that cannot hold a conversation.
        """
        found = chat_template(loaded.model.config, template)
        return cls(loaded, found, EndOfTurn.of(found, loaded.tokenizer, loaded.model), path)

    @property
    def name(self) -> str:
        """The checkpoint's name."""
        return self.loaded.model_id

    @property
    def layers(self) -> int:
        """Layers of the language model."""
        return int(self.loaded.model.config.num_hidden_layers)


def chat_template(config: Any, name: str | None = None) -> Template:
    """The template to talk in: ``name``, or else what the checkpoint's config says, or else the usual one.

    Raises:
        InputError: an unknown template, or one for captions only.
    """
    chosen = name or getattr(config, "mm_template", None)
    if chosen is None:
        chosen = USUAL_TEMPLATES.get(config.model_type, "qwen")
        logger.warning("the checkpoint names no prompt template; taking %r (--conv-mode chooses another)", chosen)
    template = get_template(chosen)
    if template.captions_only:
        raise InputError(
            f"the prompt template {chosen!r} is for captions and drops every question; this looks like a checkpoint "
            "of the first training stage: load a fine-tuned one, or choose a template with --conv-mode"
        )
    return template
