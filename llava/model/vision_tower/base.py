"""The base class of vision towers: frozen weights, lazy loading, features of one layer."""

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
    """A frozen image encoder.

    It is built without weights, because ``from_pretrained`` creates a language model on the meta device, where loaded
    weights would be lost; ``load_model`` loads the weights afterwards. Once loaded it stays in evaluation mode and
    needs no gradient.

    Args:
        name: Value of ``mm_vision_tower``.
        settings: Layer and features to use.
    """

    hidden_size: int
    """Width Dv of the features (set once loaded)."""
    num_patches: int
    """Visual tokens Nv per image (set once loaded)."""
    image_size: int
    """Side of the tower's square input, in pixels (set once loaded)."""
    image_processor: ImageProcessor
    """Converts PIL images to normalised pixels (set once loaded)."""
    carried_by: str | None
    """The checkpoint that replaced the tower's weights; None if they are the tower's own."""

    def __init__(self, name: str, settings: VisionSettings) -> None:
        super().__init__()
        self.name = name
        self.settings = settings
        self.is_loaded = False
        self.carried_by: str | None = None

    def load_model(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        """Load weights and image processor; a second call only moves the weights.

        Raises:
            InputError: The tower cannot be found or is not supported.
        """
        if not self.is_loaded:
            self._load(dtype)
            self.requires_grad_(False)
            self.eval()
            self.is_loaded = True
        self.to(device=device, dtype=dtype)

    def load_carried(self, checkpoint: str | Path) -> None:
        """Load the weights for this tower contained in a language model's checkpoint, if there are any.

        Args:
            checkpoint: Checkpoint folder; nothing is loaded for a hub name.

        Raises:
            InputError: A weight differs in shape from the tower's.
        """

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Encode images.

        Args:
            images: Normalised pixels ``[N, 3, H, W]``; moved to the tower's device and dtype.

        Returns:
            Features ``[N, Nv, Dv]`` without gradient, in the dtype of the tower's weights.

        Raises:
            InputError: The tower is not loaded, or the images have the wrong size.
        """
        if not self.is_loaded:
            raise InputError(f"the vision tower {self.name!r} has no weights yet: call load_vision_tower() first")
        size = self.image_size
        if images.dim() != 4 or tuple(images.shape[1:]) != (3, size, size):
            raise InputError(
                f"images of shape {list(images.shape)}; the vision tower {self.name!r} expects "
                f"[N, 3, {size}, {size}]: prepare them with its image processor"
            )
        return self._encode(images.to(device=self.device, dtype=self.dtype))

    def train(self, mode: bool = True) -> VisionTower:
        """Stay in evaluation mode, whatever the mode of the surrounding model."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(p.dtype for p in self.parameters() if p.is_floating_point())

    def blank(self, count: int = 1) -> Tensor:
        """Black images ``[count, 3, H, W]`` with the tower's device and dtype."""
        return torch.zeros(count, 3, self.image_size, self.image_size, device=self.device, dtype=self.dtype)

    def layers_to_run(self, depth: int) -> int:
        """Number of the tower's ``depth`` layers needed for the selected hidden state.

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
        """Source of the loaded weights; equal for two towers if they were loaded from the same files."""
        return self.name

    def recipe(self) -> dict[str, Any]:
        """Everything the features depend on besides weights and pixels; equal for copies of one tower."""
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
            dtype: Data type that the weights will be cast to; towers load them in it if they can.
        """

    @abstractmethod
    def _encode(self, images: Tensor) -> Tensor:
        """Features ``[N, Nv, Dv]`` of images that are already on the tower's device and in its dtype."""
