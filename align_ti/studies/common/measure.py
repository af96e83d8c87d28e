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
    """Two products: scores, and their sum over values. ``query [B, H, S, D]``, ``key [B, H_kv, T, D]``."""
    batch, heads, rows, width = query
    return 2 * batch * heads * rows * key[2] * (width + value[3])


def _backward_flops(grad: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Five products: the scores again, and the gradients of scores, query, key and value."""
    batch, heads, rows, width = query
    return 2 * batch * heads * rows * key[2] * (3 * width + 2 * value[3])


def _in_place_flops(total: tuple[int, int], left: tuple[int, int], *_: Any, **__: Any) -> int:
    """``total [M, N] += left [M, K] @ right``: the head's gradient is summed so."""
    return 2 * total[0] * total[1] * left[1]


NOT_COUNTED = {
    aten._scaled_dot_product_flash_attention_for_cpu: _forward_flops,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward_flops,
    aten.addmm_: _in_place_flops,
}
"""What PyTorch's counter leaves out: attention kernels of a CPU, and products that are added in place. A causal mask is
counted as full, here as there."""


def flop_counter() -> FlopCounterMode:
    """A counter of the FLOPs of products and of attention on any device."""
    return FlopCounterMode(display=False, custom_mapping=NOT_COUNTED)


class LiveBytes(TorchDispatchMode):
    """Sums the storages of all tensors that operations return, while they are alive.

    What a kernel allocates and frees within itself is not seen. (PyTorch's own tracker does not take frozen models.)

    Attributes:
        now, peak: bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def add(self, *tensors: Tensor) -> None:
        """Count tensors that were there before."""
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
        """Run the operation and count what it returns."""
        out = func(*args, **(kwargs or {}))
        self.add(*(leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)))
        return out


def peak_memory(run: Callable[[], Any], models: tuple[nn.Module, ...], device: torch.device) -> int:
    """Most bytes alive during a step, parameters included: the allocator's on a GPU, tracked tensors on a CPU."""
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
    """Wall times of all methods in turn, ``rounds`` times over, so that a noisy machine disturbs all alike."""
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
    """Median over the rounds of one method's time over another's in the same round."""
    return statistics.median(mine / theirs for mine, theirs in zip(taken, reference, strict=True))
