"""A checkpoint for evaluation: what answers depend on is known at once, the model is loaded when it is needed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from llava.files import model_fingerprint
from llava.flags import resolve_device
from llava.inference.checkpoint import LoadedModel, load, own_template


@dataclass(frozen=True)
class Checkpoint:
    """What answers depend on besides the questions.

    Attributes:
        path: Folder or hub name.
        model_id: The model's name in answers.
        fingerprint: See :func:`llava.files.model_fingerprint`.
        dtype: Name of the type of its weights.
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
    """What the answers depend on, and a function that loads the model, once however often it is called.

    Args:
        path: Folder or hub name.
        base: Language model that a projector-only checkpoint belongs to.
        device, dtype: As on the command line, ``auto`` included.
        attn_implementation: As in transformers.

    Raises:
        InputError: Not a checkpoint of this family.
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
