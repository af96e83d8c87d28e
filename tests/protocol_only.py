"""A model that offers the protocol of a vision-language model, and nothing else."""

from typing import Any

from llava.model.protocol import VisionLanguageModel

OFFERED = frozenset(name for name in vars(VisionLanguageModel) if not name.startswith("_"))


class ProtocolOnly:
    """What :class:`VisionLanguageModel` names, taken from a real model; anything else is an error."""

    def __init__(self, model: VisionLanguageModel) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        if name not in OFFERED:
            raise AttributeError(f"{name!r} is used of a model, but VisionLanguageModel does not name it")
        return getattr(self._model, name)

    def eval(self) -> "ProtocolOnly":
        """Switch training mode off."""
        self._model.eval()
        return self
