"""Reading and writing parameters that DeepSpeed ZeRO-3 keeps in pieces on several ranks."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch.distributed as dist
from torch import Tensor, nn


def is_partitioned(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether any of the parameters is partitioned by ZeRO-3."""
    return any(hasattr(parameter, "ds_id") for parameter in parameters)


def whole_size(parameter: nn.Parameter) -> int:
    """Elements of a parameter, also of one that ZeRO-3 keeps in pieces (which reports 0)."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def gathered(parameters: Iterable[Tensor], write: bool = False) -> AbstractContextManager:
    """A context in which the parameters are whole, on every rank; all ranks must enter it.

    Args:
        parameters: partitioned or ordinary parameters; for ordinary ones the context does nothing.
        write: keep what rank 0 changes inside the context.
    """
    parameters = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not parameters:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(parameters, modifier_rank=0 if write else None)


def is_main_process() -> bool:
    """Whether this process is the one that writes files."""
    return not dist.is_initialized() or dist.get_rank() == 0
