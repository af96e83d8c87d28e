"""Vision settings of a checkpoint's ``config.json``, with LLaVA's or the authors' keys."""

from __future__ import annotations

import copy
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llava.errors import InputError

AUTHORS_KEYS = {"mm_image_tower": "mm_vision_tower", "image_projector_type": "mm_projector_type"}
"""Config keys of the Align-TI authors' released checkpoints -> LLaVA's names."""

OPTIONAL_TOWERS = ("timm:", "open_clip:")
"""Name prefixes of towers that other packages load."""

SELECT_FEATURES = ("patch", "cls_patch")

TOWER_FOLDER = "vision_tower"
"""Folder of a checkpoint's own copy of its tower: in the checkpoint, or next to it if several checkpoints of a run
share one."""


def to_llava_spelling(settings: dict[str, Any]) -> dict[str, Any]:
    """Rename the authors' config keys to LLaVA's.

    Args:
        settings: Keys and values of a ``config.json``; not modified.

    Returns:
        The settings with LLaVA's key wherever only the authors' key was given.
    """
    renamed = dict(settings)
    for theirs, ours in AUTHORS_KEYS.items():
        if theirs in renamed:
            value = renamed.pop(theirs)
            if renamed.get(ours) is None:
                renamed[ours] = value
    return renamed


def check_own_form(model_type: str | None, path: str) -> None:
    """Reject a LLaVA checkpoint in transformers' format, which uses different names.

    Args:
        model_type: The model type in its config.json.
        path: Folder or hub name.

    Raises:
        InputError: The checkpoint must be imported first; the message has the command.
    """
    if model_type == "llava":
        raise InputError(
            f"{path} is a LLaVA checkpoint in transformers' format (model type 'llava'): import it with "
            f"`python -m llava.export --from hf --model_path {path} --output FOLDER`, and use that FOLDER"
        )


def is_hub_name(name: str) -> bool:
    """Whether a name of a model or dataset can only be a Hub name: ``owner/name``, and no such folder exists."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None and not Path(name).exists()


def movable_tower(tower: str | None, folder: str | os.PathLike) -> str | None:
    """The tower path to write to ``config.json``, so that a checkpoint and its own tower can be moved together.

    Args:
        tower: Value of ``mm_vision_tower``.
        folder: Folder of the checkpoint.

    Returns:
        A path relative to the folder if the tower is in it, or next to it as ``vision_tower``; otherwise ``tower``.
    """
    if not tower or not Path(tower).is_absolute():
        return tower
    checkpoint = Path(folder).resolve()
    place = Path(tower).parent.resolve() / Path(tower).name
    if place.is_relative_to(checkpoint) or place == checkpoint.parent / TOWER_FOLDER:
        return os.path.relpath(place, checkpoint)
    return tower


@dataclass(frozen=True)
class VisionSettings:
    """The vision part of a model's config.

    Attributes:
        tower: Hub name, local folder, ``timm:NAME`` or ``open_clip:NAME[@PRETRAINED]``; ``None`` without
            vision.
        projector_type: ``linear``, ``mlpNx_gelu`` or ``identity``.
        hidden_size: Width of the tower's features, the projector's input.
        select_layer: Hidden state of the tower to use; 0 is the patch embedding, -1 the last layer's
            output before the final norm, -2 the one before it.
        select_feature: ``patch`` drops the class token (SigLIP has none), ``cls_patch`` keeps it.
    """

    tower: str | None = None
    projector_type: str = "linear"
    hidden_size: int | None = None
    select_layer: int = -1
    select_feature: str = "patch"

    @classmethod
    def from_config(cls, config: object) -> VisionSettings:
        """Read the ``mm_*`` attributes of a transformers config; missing ones get LLaVA's defaults.

        Raises:
            InputError: ``mm_vision_select_feature`` is unknown, or the patch merge type is not ``flat``.
        """
        feature = getattr(config, "mm_vision_select_feature", None) or "patch"
        if feature not in SELECT_FEATURES:
            raise InputError(f"mm_vision_select_feature is {feature!r}; expected one of {', '.join(SELECT_FEATURES)}")
        merge = getattr(config, "mm_patch_merge_type", None) or "flat"
        if merge != "flat":
            raise InputError(
                f"mm_patch_merge_type is {merge!r}; only 'flat' (one view of the image, patches in reading "
                "order) is supported"
            )
        layer = getattr(config, "mm_vision_select_layer", None)
        return cls(
            tower=getattr(config, "mm_vision_tower", None),
            projector_type=getattr(config, "mm_projector_type", None) or "linear",
            hidden_size=getattr(config, "mm_hidden_size", None),
            select_layer=-1 if layer is None else int(layer),
            select_feature=feature,
        )


class LlavaConfigMixin:
    """Mixin placed before a transformers config class: ``class LlavaQwen2Config(LlavaConfigMixin, Qwen2Config)``.

    Reads LLaVA's and the authors' vision keys, and accepts the plain language model's ``config.json`` so that the first
    training stage can start from it.
    """

    model_type: ClassVar[str]

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**to_llava_spelling(kwargs))  # type: ignore[misc]

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Write ``config.json``; a tower that moves with the checkpoint is written as a relative path."""
        written: Any = copy.copy(self)
        tower = getattr(self, "mm_vision_tower", None)
        if tower is not None:
            written.mm_vision_tower = movable_tower(tower, save_directory)
        super(LlavaConfigMixin, written).save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> tuple[dict, dict]:
        """Read ``config.json``, as transformers does, and check that it belongs to this family.

        Raises:
            InputError: The checkpoint has another model type.
        """
        settings, rest = super().get_config_dict(pretrained_model_name_or_path, **kwargs)  # type: ignore[misc]
        plain = cls.model_type.removeprefix("llava_")
        found = settings.get("model_type", cls.model_type)
        if found not in (plain, cls.model_type):
            raise InputError(
                f"{pretrained_model_name_or_path} is a checkpoint of model type {found!r}; "
                f"{cls.__name__} reads {cls.model_type!r} or the plain language model {plain!r}"
            )
        settings["model_type"] = cls.model_type
        return settings, rest
