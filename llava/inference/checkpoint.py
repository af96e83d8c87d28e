"""Load a checkpoint for use: the model, its tokenizer and image processor, and its prompt template.

Evaluation, chat, the web page, export and studies load models here. Importing this module does not import torch, so
commands can check their input before anything heavy starts.
"""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llava.conversation import USUAL_TEMPLATES, Template, get_template
from llava.errors import InputError
from llava.flags import resolve_device

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from llava.inference.end_of_turn import EndOfTurn
    from llava.model.protocol import VisionLanguageModel
    from llava.model.vision_tower.processors import ImageProcessor

logger = logging.getLogger(__name__)

DEFAULT_TEMPLATE = "qwen"
"""Template of checkpoints that name none and whose model type is not in ``USUAL_TEMPLATES``. The Align-TI authors use
it."""


@dataclass(frozen=True)
class LoadedModel:
    """The result of :func:`llava.model.builder.load_pretrained_model`, and where it came from.

    Attributes:
        tokenizer: The tokenizer.
        model: The model, in evaluation mode.
        image_processor: The vision tower's image processor.
        context_length: The model's context length in tokens, including visual tokens.
        model_id: The model's name in answers.
        path: Checkpoint folder or hub name it was loaded from; None if unknown.
    """

    tokenizer: "PreTrainedTokenizerBase"
    model: "VisionLanguageModel"
    image_processor: "ImageProcessor"
    context_length: int
    model_id: str
    path: str | None = None

    @property
    def template_name(self) -> str:
        """Name of the prompt template it was tuned with; see :func:`own_template`."""
        return own_template(self.model.config)


@dataclass(frozen=True)
class ChatModel:
    """A model for chat. It has no conversation state, so several conversations can share it.

    Attributes:
        loaded: The model, its tokenizer and its image processor.
        template: The prompt template.
        end: The end of its answers.
    """

    loaded: LoadedModel
    template: Template
    end: "EndOfTurn"

    @classmethod
    def load(cls, path: str, base: str | None = None, *, template: str | None = None, **options: Any) -> "ChatModel":
        """Load a checkpoint.

        Args:
            path: Checkpoint folder or hub name.
            base: The language model that a projector-only checkpoint belongs to.
            template: Prompt template; by default the one the checkpoint was tuned with.
            options: Further arguments of :func:`load`.

        Raises:
            InputError: It is not a LLaVA-style checkpoint, or the template is unknown or for captions only.
        """
        return cls.of(load(path, base, **options), template)

    @classmethod
    def of(cls, loaded: LoadedModel, template: str | None = None) -> "ChatModel":
        """A chat model from a loaded model.

        Raises:
            InputError: The template is unknown or for captions only.
        """
        from llava.inference.end_of_turn import EndOfTurn

        found = chat_template(loaded.model.config, template)
        return cls(loaded, found, EndOfTurn.of(found, loaded.tokenizer, loaded.model))

    @property
    def name(self) -> str:
        """The checkpoint's name."""
        return self.loaded.model_id

    @property
    def path(self) -> str | None:
        """Checkpoint folder or hub name it was loaded from; None if unknown."""
        return self.loaded.path

    @property
    def layers(self) -> int:
        """Number of layers of the language model."""
        return int(self.loaded.model.config.num_hidden_layers)


def load(
    path: str,
    base: str | None = None,
    *,
    device: str = "auto",
    dtype: "str | torch.dtype | None" = "auto",
    attn_implementation: str | None = None,
    load_8bit: bool = False,
    load_4bit: bool = False,
) -> LoadedModel:
    """Load a checkpoint, in evaluation mode.

    Args:
        path: Checkpoint folder or hub name.
        base: The language model that a projector-only checkpoint belongs to.
        device: Device of the model; ``auto`` is the GPU if there is one.
        dtype: Dtype of the weights; ``auto`` is bfloat16 on a GPU and float32 on a CPU, None is the checkpoint's own.
        attn_implementation: As in transformers.
        load_8bit, load_4bit: Quantise the language model with bitsandbytes.

    Raises:
        InputError: It is not a LLaVA-style checkpoint.
    """
    import torch

    from llava.mm_utils import get_model_name_from_path
    from llava.model.builder import load_pretrained_model

    device, name = resolve_device(device, dtype if isinstance(dtype, str) else "auto")
    model_id = get_model_name_from_path(path)
    parts = load_pretrained_model(
        path,
        base,
        model_id,
        device_map=device,
        torch_dtype=getattr(torch, name) if isinstance(dtype, str) else dtype,
        attn_implementation=attn_implementation,
        load_8bit=load_8bit,
        load_4bit=load_4bit,
    )
    return LoadedModel(*parts, model_id, path)


def own_template(checkpoint: "str | PreTrainedConfig") -> str:
    """Name of the prompt template that a checkpoint was tuned with: ``mm_template`` in its configuration.

    If it is not set, LLaVA's ``v1`` for Llama models and ``DEFAULT_TEMPLATE`` for others.

    Args:
        checkpoint: Folder or hub name, or a loaded configuration.

    Raises:
        InputError: There is no readable config.json.
    """
    if not isinstance(checkpoint, str):
        return getattr(checkpoint, "mm_template", None) or _usual_template(checkpoint.model_type)
    from transformers import PreTrainedConfig

    try:
        config, _ = PreTrainedConfig.get_config_dict(checkpoint)
    except (OSError, ValueError) as error:
        raise InputError(f"{checkpoint}: no readable config.json; expected a LLaVA checkpoint: {error}") from error
    if not config:
        raise InputError(f"{checkpoint}: no readable config.json; expected a LLaVA checkpoint")
    return config.get("mm_template") or _usual_template(config.get("model_type", ""))


def chat_template(config: "PreTrainedConfig", name: str | None = None) -> Template:
    """The template for chat: ``name``, by default the checkpoint's own.

    Raises:
        InputError: The template is unknown or for captions only.
    """
    chosen = name or own_template(config)
    if name is None and getattr(config, "mm_template", None) is None:
        logger.warning("the checkpoint names no prompt template; using %r (--conv-mode chooses another)", chosen)
    template = get_template(chosen)
    if template.captions_only:
        raise InputError(
            f"the prompt template {chosen!r} is for captions and drops all questions; this looks like a checkpoint of "
            "the first training stage: load a fine-tuned one, or choose a template with --conv-mode"
        )
    return template


def _usual_template(model_type: str) -> str:
    return USUAL_TEMPLATES.get(model_type, DEFAULT_TEMPLATE)
