"""FLOPs, wall time and peak memory of a step."""

import statistics
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

Shape = tuple[int, int, int, int]

aten = torch.ops.aten


def _forward_flops(query: Shape, key: Shape, value: Shape, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Two matrix products: the scores, and the weighted sum of the values. ``query [B, H, S, D]``, ``key [B, H_kv, T,
    D]``."""
    batch, heads, rows, width = query
    return 2 * batch * heads * rows * key[2] * (width + value[3])


def _backward_flops(grad: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Five matrix products: the scores again, and the gradients of scores, query, key and value."""
    batch, heads, rows, width = query
    return 2 * batch * heads * rows * key[2] * (3 * width + 2 * value[3])


def _in_place_flops(total: tuple[int, int], left: tuple[int, int], *_: Any, **__: Any) -> int:
    """``total [M, N] += left [M, K] @ right``: this is how the head's gradient is accumulated."""
    return 2 * total[0] * total[1] * left[1]


NOT_COUNTED = {
    aten._scaled_dot_product_flash_attention_for_cpu: _forward_flops,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward_flops,
    aten.addmm_: _in_place_flops,
}
"""Operations that PyTorch's counter leaves out: CPU attention kernels, and matrix products accumulated in place. A
causal mask counts as a full one, as in PyTorch's counter."""


def flop_counter() -> FlopCounterMode:
    """A counter of the FLOPs of matrix products and attention, on any device."""
    return FlopCounterMode(display=False, custom_mapping=NOT_COUNTED)


class LiveBytes(TorchDispatchMode):
    """Tracks the total size of the live storages of all tensors that operations return.

    Memory that a kernel allocates and frees internally is not seen. (PyTorch's own tracker does not support frozen
    models.)

    Attributes:
        now, peak: Live bytes now, and their maximum so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def add(self, *tensors: Tensor) -> None:
        """Count tensors that already exist."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self._known:
                self._known.add(key)
                self.now += size
                weakref.finalize(storage, self._freed, key, size)
        self.peak = max(self.peak, self.now)

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count the tensors it returns."""
        out = func(*args, **(kwargs or {}))
        self.add(*(leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)))
        return out


def peak_memory(run: Callable[[], Any], models: tuple[nn.Module, ...], device: torch.device) -> int:
    """Peak memory of a step in bytes, including parameters: from the allocator on a GPU, from tracked tensors on a
    CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    with LiveBytes() as live:
        for model in models:
            live.add(*model.parameters(), *model.buffers())
        run()
    return live.peak


def seconds(
    runs: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device, warmup: int = 1
) -> dict[str, list[float]]:
    """Wall times in seconds. The methods run in turn, ``rounds`` times, so that noise on the machine affects all
    equally."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in tqdm(range(warmup + rounds), desc="timing", unit="round"):
        for name, run in runs.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            started = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn >= warmup:
                taken[name].append(time.perf_counter() - started)
    return taken


def ratio(taken: list[float], reference: list[float]) -> float:
    """Median over the rounds of one method's time divided by another's in the same round."""
    return statistics.median(mine / theirs for mine, theirs in zip(taken, reference, strict=True))
