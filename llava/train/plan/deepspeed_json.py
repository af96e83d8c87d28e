"""Memory settings of a DeepSpeed JSON; ``"auto"`` is resolved as in transformers, defaults are DeepSpeed's."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.errors import InputError


@dataclass(frozen=True)
class Zero:
    """ZeRO settings; without a JSON nothing is sharded.

    Attributes:
        stage: 0 to 3.
        offloads_optimizer, offloads_weights: Whether they are kept in CPU memory.
        buckets: Size of the gradient reduction buffers, in elements.
        gathered: Maximum number of gathered weights at a time (ZeRO-3).
    """

    stage: int = 0
    offloads_optimizer: bool = False
    offloads_weights: bool = False
    buckets: int = 0
    gathered: int = 0


def read_zero(file: str | None, hidden: int) -> Zero:
    """Read a DeepSpeed JSON.

    Args:
        file: Path; None for a run without DeepSpeed.
        hidden: Hidden size of the trained model, which ``"auto"`` depends on.

    Raises:
        InputError: The file is not a DeepSpeed JSON.
    """
    if file is None:
        return Zero()
    try:
        settings = json.loads(Path(file).read_text()).get("zero_optimization", {})
        stage = int(settings.get("stage", 0))
        overlap = settings.get("overlap_comm")
        overlap = stage == 3 if overlap is None else bool(overlap)
        bucket = _number(settings, "reduce_bucket_size", auto=hidden**2, default=500_000_000)
        prefetch = _number(settings, "stage3_prefetch_bucket_size", auto=int(0.9 * hidden**2), default=50_000_000)
        live = _number(settings, "stage3_max_live_parameters", auto=1_000_000_000, default=1_000_000_000)
        return Zero(
            stage=stage,
            offloads_optimizer=_device(settings, "offload_optimizer") != "none",
            offloads_weights=_device(settings, "offload_param") != "none",
            # ZeRO-1 and 2 fill a second buffer while the first is reduced.
            buckets=(bucket * (2 if overlap and stage < 3 else 1) if settings.get("contiguous_gradients", True) else 0)
            if stage
            else 0,
            gathered=live + prefetch if stage == 3 else 0,
        )
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"--deepspeed {file}: not a DeepSpeed JSON ({error})") from error


def _number(settings: dict[str, Any], name: str, auto: int, default: int) -> int:
    value = settings.get(name, default)
    return auto if value == "auto" else int(value)


def _device(settings: dict[str, Any], name: str) -> str:
    return (settings.get(name) or {}).get("device", "none")
