"""Reading and writing parameters that DeepSpeed ZeRO-3 shards over the ranks."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch.distributed as dist
from torch import Tensor, nn


def is_partitioned(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether any of the parameters is partitioned by ZeRO-3."""
    return any(hasattr(parameter, "ds_id") for parameter in parameters)


def whole_size(parameter: nn.Parameter) -> int:
    """Number of elements of a parameter, also if ZeRO-3 has sharded it (its own count is then 0)."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def gathered(parameters: Iterable[Tensor], write: bool = False) -> AbstractContextManager:
    """A context in which the full parameters are available on every rank; all ranks must enter it.

    Args:
        parameters: Partitioned or ordinary parameters; for ordinary ones the context does nothing.
        write: Keep changes that rank 0 makes inside the context.
    """
    parameters = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not parameters:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(parameters, modifier_rank=0 if write else None)


def is_main_process() -> bool:
    """Whether this is the process that writes files."""
    return not dist.is_initialized() or dist.get_rank() == 0
