"""Registers the model ``align_ti`` with lmms-eval.

lmms-eval loads the entry points of group ``lmms_eval.models`` when it starts, so this module imports nothing heavy; the
model class is imported only when it is used.
"""

from typing import Any

MODEL_ID = "align_ti"
MODEL_CLASS = "llava.eval.lmms.model.AlignTI"


def manifest() -> Any:
    """The entry point's payload: lmms-eval's ``ModelManifest`` of our model."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=MODEL_ID, simple_class_path=MODEL_CLASS)
