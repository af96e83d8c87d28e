"""What a checkpoint's ``config.json`` says about vision, whichever spelling it uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from llava.errors import InputError

AUTHORS_KEYS = {"mm_image_tower": "mm_vision_tower", "image_projector_type": "mm_projector_type"}
"""Config keys of the Align-TI authors' released checkpoints, and LLaVA's name for the same thing."""

SELECT_FEATURES = ("patch", "cls_patch")


def to_llava_spelling(settings: dict[str, Any]) -> dict[str, Any]:
    """Rename the authors' config keys to LLaVA's.

    Args:
        settings: keys and values of a ``config.json``; not modified.

    Returns:
        The same settings with LLaVA's key wherever only the authors' key was given.
    """
    renamed = dict(settings)
    for theirs, ours in AUTHORS_KEYS.items():
        if theirs in renamed:
            value = renamed.pop(theirs)
            if renamed.get(ours) is None:
                renamed[ours] = value
    return renamed


@dataclass(frozen=True)
class VisionSettings:
    """The vision part of a model's config.

    Attributes:
        tower: hub name, local folder, ``timm:NAME`` or ``open_clip:NAME[@PRETRAINED]``; ``None`` without
            vision.
        projector_type: ``linear``, ``mlpNx_gelu`` or ``identity``.
        hidden_size: width of the tower's features, the projector's input.
        select_layer: which hidden state of the tower is used; 0 is the patch embedding, -1 the last layer's
            output before the final norm, -2 the one before it.
        select_feature: ``patch`` drops the class token (SigLIP has none), ``cls_patch`` keeps it.
    """

    tower: str | None = None
    projector_type: str = "linear"
    hidden_size: int | None = None
    select_layer: int = -1
    select_feature: str = "patch"

    @classmethod
    def from_config(cls, config: Any) -> VisionSettings:
        """Read the ``mm_*`` attributes of a transformers config; absent ones take LLaVA's defaults.

        Raises:
            InputError: an unknown ``mm_vision_select_feature``, or a way of merging patches other than
                ``flat``.
        """
        feature = getattr(config, "mm_vision_select_feature", None) or "patch"
        if feature not in SELECT_FEATURES:
            raise InputError(f"mm_vision_select_feature is {feature!r}; expected one of {', '.join(SELECT_FEATURES)}")
        merge = getattr(config, "mm_patch_merge_type", None) or "flat"
        if merge != "flat":
            raise InputError(
                f"mm_patch_merge_type is {merge!r}; only 'flat' (one view of the picture, patches in reading "
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
    """Goes before a transformers config class: ``class LlavaQwen2Config(LlavaConfigMixin, Qwen2Config)``.

    Reads both spellings of the vision keys, and accepts the plain language model's ``config.json`` so that
    the first training stage can start from it.
    """

    model_type: ClassVar[str]

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**to_llava_spelling(kwargs))  # type: ignore[misc]

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> tuple[dict, dict]:
        """Read ``config.json``, as transformers does, and check that it belongs to this family.

        Raises:
            InputError: the checkpoint is of another model type.
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
