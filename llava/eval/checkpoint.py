"""A checkpoint for evaluation: what answers depend on is known at once, the model is loaded when it is needed."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from llava.eval.evaluate import Checkpoint, own_template
from llava.files import model_fingerprint
from llava.flags import resolve_device

if TYPE_CHECKING:
    from llava.inference.generate import LoadedModel


def open_checkpoint(
    path: str, base: str | None, device: str, dtype: str, attn_implementation: str | None = None
) -> tuple[Checkpoint, Callable[[], "LoadedModel"]]:
    """What the answers depend on, and a function that loads the model, once however often it is called.

    Args:
        path: folder or hub name.
        base: language model that a projector-only checkpoint belongs to.
        device, dtype: As on the command line, ``auto`` included.
        attn_implementation: As in transformers.

    Raises:
        InputError: not a checkpoint of this family.
    """
    import torch  # heavy modules are imported when the input is known to be right

    from llava.mm_utils import get_model_name_from_path

    device, dtype = resolve_device(device, dtype)
    checkpoint = Checkpoint(
        path=path,
        model_id=get_model_name_from_path(path),
        fingerprint=model_fingerprint(path, base),
        dtype=dtype,
        template=own_template(path),
    )

    @cache
    def load_model() -> "LoadedModel":
        from llava.inference.generate import LoadedModel
        from llava.model.builder import load_pretrained_model

        parts = load_pretrained_model(
            path,
            base,
            checkpoint.model_id,
            device_map=device,
            torch_dtype=getattr(torch, dtype),
            attn_implementation=attn_implementation,
        )
        return LoadedModel(*parts, checkpoint.model_id)

    return checkpoint, load_model
