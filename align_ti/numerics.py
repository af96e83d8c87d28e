"""In which precision losses are taken, and how many rows of logits, or of a head, are made at once."""

import torch
from torch import Tensor

CHUNK_BYTES = {"cuda": 64 * 2**20, "cpu": 4 * 2**20}
"""Size of one float32 chunk of logits when ``chunk_rows`` is not given, by device; some six of them live at once. A CPU
is fastest when they stay in its cache."""

MIN_CHUNK_ROWS = 16


def exact_dtype(*tensors: Tensor) -> torch.dtype:
    """What losses are summed in: float64 if one of the tensors is float64, float32 otherwise."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def chunk_bytes(device: torch.device) -> int:
    """Bytes of one chunk on a device."""
    return CHUNK_BYTES.get(device.type, CHUNK_BYTES["cuda"])


def default_chunk_rows(vocabulary: int, device: torch.device) -> int:
    """Rows of float32 logits that make one chunk, at least 16."""
    return max(MIN_CHUNK_ROWS, chunk_bytes(device) // (4 * vocabulary))


def head_rows(weight: Tensor) -> int:
    """Rows of a head ``[V, D]``, in float32, that make one chunk."""
    return max(1, chunk_bytes(weight.device) // (4 * weight.shape[1]))
