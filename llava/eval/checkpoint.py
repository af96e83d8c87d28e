"""A checkpoint for evaluation: its identity is known at once, the model is loaded only when needed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from llava.files import model_fingerprint
from llava.flags import resolve_device
from llava.inference.checkpoint import LoadedModel, load, own_template


@dataclass(frozen=True)
class Checkpoint:
    """The part of a checkpoint that answers depend on.

    Attributes:
        path: Folder or hub name.
        model_id: The model's name in answers.
        fingerprint: See :func:`llava.files.model_fingerprint`.
        dtype: Name of the weights' dtype.
        template: Name of the prompt template it was tuned with.
    """

    path: str
    model_id: str
    fingerprint: str
    dtype: str
    template: str = "qwen"


def open_checkpoint(
    path: str, base: str | None, device: str, dtype: str, attn_implementation: str | None = None
) -> tuple[Checkpoint, Callable[[], LoadedModel]]:
    """A checkpoint's identity, and a function that loads the model; repeated calls load it only once.

    Args:
        path: Folder or hub name.
        base: Language model that a projector-only checkpoint belongs to.
        device, dtype: As on the command line; may be ``auto``.
        attn_implementation: As in transformers.

    Raises:
        InputError: It is not a LLaVA-style checkpoint.
    """
    from llava.mm_utils import get_model_name_from_path  # here, since it needs torch

    device, dtype = resolve_device(device, dtype)
    checkpoint = Checkpoint(
        path=path,
        model_id=get_model_name_from_path(path),
        fingerprint=model_fingerprint(path, base),
        dtype=dtype,
        template=own_template(path),
    )

    @cache
    def load_model() -> LoadedModel:
        return load(path, base, device=device, dtype=dtype, attn_implementation=attn_implementation)

    return checkpoint, load_model
