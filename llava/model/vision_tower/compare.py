"""Whether two towers give the same features, decided by content, because copies of a tower have different names."""

from __future__ import annotations

import torch
from torch import Tensor

from llava.model.vision_tower.base import VisionTower
from llava.model.vision_tower.processors import processor_settings
from llava.model.zero import gathered


def tower_difference(one: VisionTower, other: VisionTower) -> str | None:
    """The first reason why two loaded towers would give different features for the same images.

    The comparison goes from cheap to expensive: names, configurations, image processors, weights. Under ZeRO-3 every
    rank must call it, because sharded weights are gathered one by one.

    Args:
        one, other: Loaded towers, possibly of different precision. Weights are compared in the lower one.

    Returns:
        The first difference as a phrase; None if there is none.
    """
    if type(one) is not type(other):
        return f"one is a {type(one).__name__}, the other a {type(other).__name__}"
    mine, theirs = one.recipe(), other.recipe()
    for key in {**mine, **theirs}:
        if mine.get(key) != theirs.get(key):
            return f"{key} is {mine.get(key)!r} in one and {theirs.get(key)!r} in the other"
    if processor_settings(one.image_processor) != processor_settings(other.image_processor):
        return "their image processors differ"
    if one.place() == other.place() and one.carried_by == other.carried_by:
        return None
    ours, others = one.used_weights(), other.used_weights()
    if ours.keys() != others.keys():
        return f"one has weights that the other lacks, among them {min(ours.keys() ^ others.keys())}"
    for name, weight in ours.items():
        with gathered([weight, others[name]]):
            if not same_values(weight, others[name]):
                return f"their weights differ, first in {name}"
    return None


def same_values(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same values in the less precise of their dtypes.

    The dtypes are equal or one of them is float32; the devices may differ.
    """
    if one.shape != other.shape:
        return False
    dtype = min(one.dtype, other.dtype, key=lambda dtype: dtype.itemsize)
    return torch.equal(one.detach().to(other.device, dtype), other.detach().to(dtype))
