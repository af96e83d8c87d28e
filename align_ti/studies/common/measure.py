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

aten = torch.ops.aten


def _attended(given: Mapping[str, Any]) -> int:
    """Pairs of a query and a key it attends to, of one call of an attention operator and over all its sequences.

    For a causal mask only the unmasked pairs count; with a mask given as a tensor, all pairs count.
    """
    query, key = given["query"], given["key"]
    if query.dim() == 3:  # sequences one after the other
        edges = given["cum_seq_q"], given["cum_seq_k"]
        if edges[0].is_meta:  # lengths unknown: all as long as the longest
            sizes = [(given["max_q"], given["max_k"])] * (len(edges[0]) - 1)
        else:
            sizes = list(zip(*(edge.diff().tolist() for edge in edges), strict=True))
        # Aligned at the end: query i of n sees keys up to i + m - n of m.
        return sum(n * m - n * (n - 1) // 2 if given.get("is_causal") else n * m for n, m in sizes)
    batch, rows, columns = query.shape[0], query.shape[2], key.shape[2]
    if not given.get("is_causal"):
        return batch * rows * columns
    seen = min(rows, columns)  # aligned at the beginning: query i sees keys up to i
    return batch * (seen * (seen + 1) // 2 + (rows - seen) * columns)


def _attention_flops(operator: Any, backward: bool) -> Callable[..., int]:
    """A formula for the FLOP counter.

    Forward are two matrix products: the scores, and the weighted sum of the values. Backward are five: the scores
    again, and the gradients of scores, query, key and value.
    """
    names = [argument.name for argument in operator.default._schema.arguments]

    def count(*values: Any, out_val: Any = None, **named: Any) -> int:
        given = {**dict(zip(names, values, strict=False)), **named}
        query, width = given["query"], given["value"].shape[-1]
        heads = query.shape[-2] if query.dim() == 3 else query.shape[1]
        products = 3 * query.shape[-1] + 2 * width if backward else query.shape[-1] + width
        return 2 * heads * _attended(given) * products

    count._get_raw = True  # type: ignore[attr-defined]  # tensors, not shapes
    return count


def _in_place_flops(total: tuple[int, int], left: tuple[int, int], *_: Any, **__: Any) -> int:
    """``total [M, N] += left [M, K] @ right``: this is how the head's gradient is accumulated."""
    return 2 * total[0] * total[1] * left[1]


def _addmm_flops(_: Any, left: tuple[int, int], right: tuple[int, int], *__: Any, **___: Any) -> int:
    """``[M, K] @ [K, N]`` added to something; torch's own formula does not take the form with a type of the sum."""
    return 2 * left[0] * left[1] * right[1]


ATTENTION = (
    (aten._scaled_dot_product_flash_attention_for_cpu, aten._scaled_dot_product_flash_attention_for_cpu_backward),
    (aten._scaled_dot_product_flash_attention, aten._scaled_dot_product_flash_attention_backward),
    (aten._scaled_dot_product_efficient_attention, aten._scaled_dot_product_efficient_attention_backward),
    (aten._scaled_dot_product_cudnn_attention, aten._scaled_dot_product_cudnn_attention_backward),
    (aten._flash_attention_forward, aten._flash_attention_backward),
)
"""Attention operators and their backward passes. PyTorch's counter leaves those of the CPU out, refuses fewer key heads
than query heads in torch 2.11, and counts a causal mask as a full one."""

COUNTED = {
    **{forward: _attention_flops(forward, backward=False) for forward, _ in ATTENTION},
    **{backward: _attention_flops(backward, backward=True) for _, backward in ATTENTION},
    aten.addmm_: _in_place_flops,
    aten.addmm: _addmm_flops,
}
"""Formulas in addition to those of PyTorch's counter."""


def flop_counter() -> FlopCounterMode:
    """A counter of the FLOPs of matrix products and attention, on any device."""
    return FlopCounterMode(display=False, custom_mapping=COUNTED)


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
    for turn in tqdm(range(warmup + rounds), desc="timing", unit="round", disable=None):
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
