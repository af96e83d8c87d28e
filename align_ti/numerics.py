"""In which precision losses are taken, and how many rows of logits, or of a head, are made at once."""

from functools import cache

import torch
from torch import Tensor

CPU_CHUNK_BYTES = 4 * 2**20
"""Size of one float32 chunk of logits on a CPU when ``chunk_rows`` is not given: it is fastest in the cache."""

CUDA_SHARE = 128
"""On a GPU a chunk is this part of its memory: 1,100 rows of 152k on a card of 80 GB. Small chunks read the heads once
for few rows, and are bound by launches. Up to six of the size live at once, three with ``compile_losses``."""

MIN_CHUNK_ROWS = 16


def exact_dtype(*tensors: Tensor) -> torch.dtype:
    """What losses are summed in: float64 if one of the tensors is float64, float32 otherwise."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def chunk_bytes(device: torch.device, memory: int | None = None) -> int:
    """Bytes of one chunk on a device.

    Args:
        device: The device.
        memory: GPU memory in bytes; by default that of this machine's GPU.
    """
    if device.type != "cuda":
        return CPU_CHUNK_BYTES
    return (_memory(device) if memory is None else memory) // CUDA_SHARE


def default_chunk_rows(vocabulary: int, device: torch.device, memory: int | None = None) -> int:
    """Rows of float32 logits that make one chunk, at least 16; see ``chunk_bytes``."""
    return max(MIN_CHUNK_ROWS, chunk_bytes(device, memory) // (4 * vocabulary))


@cache
def _memory(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).total_memory


def head_rows(weight: Tensor) -> int:
    """Rows of a head ``[V, D]``, in float32, that make one chunk."""
    return max(1, chunk_bytes(weight.device) // (4 * weight.shape[1]))
