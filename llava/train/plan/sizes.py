"""Sizes of models from their configurations alone; no weights are loaded and no memory is allocated."""

import re
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionModel, PreTrainedConfig, SiglipVisionModel

from llava.errors import InputError
from llava.model.config import VisionSettings, check_own_form
from llava.model.language import language_model_class
from llava.model.lora import TARGETS
from llava.model.projector import build_projector
from llava.model.vision_tower import anchor_tower
from llava.train.arguments import ModelArguments
from llava.train.shapes import Source, read_config, read_tower_config
from llava.train.tower import chosen_tower

VISION_MODELS: dict[str, Any] = {"siglip_vision_model": SiglipVisionModel, "clip_vision_model": CLIPVisionModel}


@dataclass(frozen=True)
class DecoderShape:
    """Widths of a language model.

    Attributes:
        hidden, layers, heads, kv_heads, head_dim, intermediate, vocabulary: As in its configuration.
        tied: Whether embedding and head are one matrix.
        norms_queries: Whether queries and keys are normalised (Qwen3).
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool = False
    norms_queries: bool = False

    @classmethod
    def of(cls, config: PreTrainedConfig) -> "DecoderShape":
        """Read a transformers configuration."""
        heads = config.num_attention_heads
        return cls(
            hidden=config.hidden_size,
            layers=config.num_hidden_layers,
            heads=heads,
            kv_heads=config.num_key_value_heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            intermediate=config.intermediate_size,
            vocabulary=config.vocab_size,
            tied=bool(config.tie_word_embeddings),
            norms_queries="qwen3" in config.model_type,
        )

    @property
    def queries(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.kv_heads * self.head_dim

    @property
    def products(self) -> int:
        """Entries of all matrices of one layer."""
        return self.hidden * (2 * self.queries + 2 * self.keys + 3 * self.intermediate)


@dataclass(frozen=True)
class TowerSize:
    """A vision tower.

    Attributes:
        name: Name given by the user.
        parameters: Number of parameters in memory, without the layers above the selected one; 0 if unknown.
        width, layers, intermediate: Size of the layers that run.
        tokens: Tokens per image, including a class token.
        visual_tokens: Tokens per image that the language model sees.
        image_size: Side of an image in pixels.
        known: Whether the sizes are known; if not, all numbers are 0.
    """

    name: str
    parameters: int = 0
    width: int = 0
    layers: int = 0
    intermediate: int = 0
    tokens: int = 0
    visual_tokens: int = 0
    image_size: int = 0
    known: bool = True


@dataclass(frozen=True)
class ModelSize:
    """Parameters of a vision-language model by part, and the widths that memory depends on.

    Attributes:
        name: Name given by the user.
        tower: The vision tower.
        projector, embedding, layers, head: Parameters; ``head`` is 0 if it is tied to the embedding.
        shape: Widths of the language model.
        adapted: Parameters of LoRA adapters of rank 1: inputs and outputs of the layers that get one.
        sources: Where the configurations of language model and tower come from.
    """

    name: str
    tower: TowerSize
    projector: int
    embedding: int
    layers: int
    head: int
    shape: DecoderShape
    adapted: int
    sources: frozenset[Source]

    @property
    def visual_tokens(self) -> int:
        """Visual tokens per image."""
        return self.tower.visual_tokens

    @property
    def language(self) -> int:
        """Parameters of the language model; a tied head counts once."""
        return self.embedding + self.layers + self.head

    @property
    def total(self) -> int:
        """All parameters."""
        return self.tower.parameters + self.projector + self.language


def count(module: nn.Module) -> int:
    """Parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def model_size(
    name: str, tower: str | None, projector: str, select_layer: int = -1, select_feature: str = "patch"
) -> ModelSize:
    """Sizes of a language model or LLaVA checkpoint with a tower and a projector.

    Args:
        name: Folder or hub name of the language model.
        tower: The vision tower; by default that of the checkpoint.
        projector: Type of the projector.
        select_layer, select_feature: Output of the tower, see ``VisionSettings``.

    Raises:
        InputError: No tower is given, or a configuration cannot be found.
    """
    config, source = read_config(name)
    check_own_form(config.model_type, name)
    tower = chosen_tower(ModelArguments(name, vision_tower=tower), config)
    seen, seen_source = tower_size(tower, select_layer, select_feature)
    model_class = language_model_class(config.model_type)
    values = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "mm_vision_tower")}
    plain = model_class.config_class(**values)
    plain.mm_projector_type = projector
    if seen.known:
        plain.mm_hidden_size = seen.width
    with torch.device("meta"):
        model = model_class(plain)
        bridge = build_projector(plain) if getattr(plain, "mm_hidden_size", None) else nn.Identity()
    embedding = count(model.get_input_embeddings())
    return ModelSize(
        name=name,
        tower=seen,
        projector=count(bridge),
        embedding=embedding,
        layers=count(model.model) - embedding,
        head=0 if plain.tie_word_embeddings else count(model.lm_head),
        shape=DecoderShape.of(plain),
        adapted=sum(
            module.in_features + module.out_features
            for path, module in model.named_modules()
            if isinstance(module, nn.Linear) and re.fullmatch(TARGETS, path)
        ),
        sources=frozenset((source, seen_source)),
    )


def teacher_size(name: str, student_tower: str, projector: str, select_layer: int, select_feature: str) -> ModelSize:
    """Sizes of a teacher: with its own tower and projector if it is a LLaVA checkpoint, otherwise with the student's.

    Args:
        name: Folder or hub name.
        student_tower, projector, select_layer, select_feature: The student's.

    Raises:
        InputError: A configuration cannot be had.
    """
    config, _ = read_config(name)
    anchor_tower(config, name)
    own = VisionSettings.from_config(config)
    if own.tower:
        return model_size(name, own.tower, own.projector_type, own.select_layer, own.select_feature)
    return model_size(name, student_tower, projector, select_layer, select_feature)


def tower_size(name: str, select_layer: int = -1, select_feature: str = "patch") -> tuple[TowerSize, Source]:
    """Sizes of a vision tower, and their source.

    transformers' towers drop the layers above the selected one; those of timm and open_clip keep them in memory.

    Raises:
        InputError: Its configuration cannot be found, or is neither SigLIP nor CLIP.
    """
    config, source = read_tower_config(name)
    if config is None:
        return TowerSize(name, known=False), source
    vision: PreTrainedConfig = getattr(config, "vision_config", config)
    if vision.model_type not in VISION_MODELS:
        raise InputError(
            f"vision tower {name!r} is of model type {config.model_type!r}; expected SigLIP or CLIP, or a tower named "
            "timm:NAME or open_clip:NAME"
        )
    with torch.device("meta"):
        model = VISION_MODELS[vision.model_type](vision)
    stack = next(module for path, module in model.named_modules() if path.endswith("encoder.layers"))
    depth = len(stack)
    if not -depth - 1 <= select_layer <= depth:
        raise InputError(
            f"--mm_vision_select_layer is {select_layer}, but the vision tower {name!r} has {depth} layers"
        )
    runs = select_layer if select_layer >= 0 else depth + 1 + select_layer
    dropped = 0 if ":" in name else depth - runs
    patches, class_tokens = (vision.image_size // vision.patch_size) ** 2, int("clip" in vision.model_type)
    size = TowerSize(
        name=name,
        parameters=count(model) - dropped * count(stack[0]),
        width=vision.hidden_size,
        layers=runs,
        intermediate=vision.intermediate_size,
        tokens=patches + class_tokens,
        visual_tokens=patches + (class_tokens if select_feature == "cls_patch" else 0),
        image_size=vision.image_size,
    )
    return size, source


def shares_tower(student: ModelSize, teacher: ModelSize) -> bool:
    """Whether the teacher uses the student's tower: both have the same sizes, whatever their names.

    A run also compares the weights; a plan reads none.
    """
    return student.tower.known and replace(student.tower, name="") == replace(teacher.tower, name="")
