"""What every vision tower has in common: frozen weights, lazy loading, features of one layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llava.errors import InputError
from llava.model.config import VisionSettings
from llava.model.vision_tower.processors import ImageProcessor


class VisionTower(nn.Module, ABC):
    """A frozen picture encoder.

    It is built without weights, because a language model is created on the meta device by ``from_pretrained``
    and whatever is loaded inside is lost; ``load_model`` fetches the weights afterwards. Once loaded it stays
    in evaluation mode and needs no gradient.

    Args:
        name: what the user wrote in ``mm_vision_tower``.
        settings: layer and features to take.
    """

    hidden_size: int
    """Width Dv of the features (set once loaded)."""
    num_patches: int
    """Visual tokens Nv per picture (set once loaded)."""
    image_size: int
    """Side of the square picture the tower expects, in pixels (set once loaded)."""
    image_processor: ImageProcessor
    """Turns PIL pictures into normalised pixels (set once loaded)."""
    carried_by: str | None
    """The checkpoint that brought its own weights for the tower; None if they are the tower's."""

    def __init__(self, name: str, settings: VisionSettings) -> None:
        super().__init__()
        self.name = name
        self.settings = settings
        self.is_loaded = False
        self.carried_by: str | None = None

    def load_model(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        """Load weights and image processor; a second call only moves the weights.

        Raises:
            InputError: the tower cannot be found or is of an unsupported kind.
        """
        if not self.is_loaded:
            self._load(dtype)
            self.requires_grad_(False)
            self.eval()
            self.is_loaded = True
        self.to(device=device, dtype=dtype)

    def load_carried(self, checkpoint: str | Path) -> None:
        """Take the weights that a language model's checkpoint carries for this tower, where it carries any.

        Args:
            checkpoint: its folder; a hub name carries none.

        Raises:
            InputError: a weight has another shape than the tower's.
        """

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Encode pictures.

        Args:
            images: normalised pixels ``[N, 3, H, W]``; moved to the tower's device and dtype.

        Returns:
            Features ``[N, Nv, Dv]`` without gradient, in the dtype of the tower's weights.

        Raises:
            InputError: the tower is not loaded, or the pictures have another size than the tower expects.
        """
        if not self.is_loaded:
            raise InputError(f"the vision tower {self.name!r} has no weights yet: call load_vision_tower() first")
        size = self.image_size
        if images.dim() != 4 or tuple(images.shape[1:]) != (3, size, size):
            raise InputError(
                f"pictures of shape {list(images.shape)}; the vision tower {self.name!r} expects "
                f"[N, 3, {size}, {size}]: prepare them with its image processor"
            )
        return self._encode(images.to(device=self.device, dtype=self.dtype))

    def train(self, mode: bool = True) -> VisionTower:
        """Stay in evaluation mode, whatever the model around does."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(p.dtype for p in self.parameters() if p.is_floating_point())

    def blank(self, count: int = 1) -> Tensor:
        """Black pictures ``[count, 3, H, W]`` in the tower's device and dtype."""
        return torch.zeros(count, 3, self.image_size, self.image_size, device=self.device, dtype=self.dtype)

    def layers_to_run(self, depth: int) -> int:
        """How many of the tower's ``depth`` layers the selected hidden state needs.

        Hidden state 0 is the embedding and hidden state ``depth`` the last layer's output; negative numbers
        count from the end, as in LLaVA.

        Raises:
            InputError: ``mm_vision_select_layer`` is out of range.
        """
        layer = self.settings.select_layer
        if not -depth - 1 <= layer <= depth:
            raise InputError(
                f"mm_vision_select_layer is {layer}, but the vision tower {self.name!r} has {depth} layers: "
                f"expected {-depth - 1} to {depth}"
            )
        return layer if layer >= 0 else depth + 1 + layer

    def place(self) -> str:
        """Where the loaded weights came from; the same for two towers means the same files."""
        return self.name

    def recipe(self) -> dict[str, Any]:
        """What the features depend on besides weights and pixels; equal for copies of one tower."""
        return {
            "mm_vision_tower": self.name,
            "mm_vision_select_layer": self.settings.select_layer,
            "mm_vision_select_feature": self.settings.select_feature,
        }

    def used_weights(self) -> dict[str, Tensor]:
        """The weights that the features depend on, by name."""
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}

    @abstractmethod
    def _load(self, dtype: torch.dtype | None) -> None:
        """Load the weights and set ``hidden_size``, ``num_patches``, ``image_size`` and ``image_processor``.

        Args:
            dtype: what the weights will be cast to; a tower that can, loads them so.
        """

    @abstractmethod
    def _encode(self, images: Tensor) -> Tensor:
        """Features ``[N, Nv, Dv]`` of pictures that are already in place."""
