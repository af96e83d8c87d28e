"""Questions that the design of a GPU step hangs on, answered in seconds each; milliseconds unless a name says other.

python -m align_ti.studies.gpu.probe --out DIR            on a GPU
python -m align_ti.studies.gpu.probe --out DIR --small    a dry run on a CPU
"""

import argparse
import json
import statistics
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from align_ti.losses.linear_heads import linear_divergence
from align_ti.studies.cost.methods import build_decoder
from align_ti.studies.cost.sizes import PRESETS, Decoder
from llava.model.fused_layers import fuse_layers

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BFLOAT16: dict[str, Any] = {"device": DEVICE, "dtype": torch.bfloat16}


def milliseconds(run: Callable[[], Any], rounds: int = 5, warmup: int = 2) -> float:
    """Median time of a call on the device."""
    if DEVICE.type != "cuda":
        started = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - started)
    for _ in range(warmup):
        run()
    taken = []
    for _ in range(rounds):
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        run()
        after.record()
        torch.cuda.synchronize()
        taken.append(before.elapsed_time(after))
    return statistics.median(taken)


def first_call(run: Callable[[], Any]) -> float:
    """Wall time of one call, waits included."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - started)


def ceilings(small: bool) -> dict[str, float]:
    """What everything else is held against: TFLOP/s of the real shapes, GB/s of a copy."""
    size = 2**16 if small else 2**30
    source = torch.empty(size, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    found = {"copy, GB/s": 2 * size / milliseconds(lambda: target.copy_(source)) / 1e6}
    shapes = {
        "teacher MLP": (7040, 3584, 18944),
        "student MLP": (7040, 896, 4864),
        "teacher MLP, 800 candidates": (800, 3584, 18944),
        "teacher head, 110 rows": (110, 3584, 151936),
        "teacher head, 1024 rows": (1024, 3584, 151936),
        "student head, 1024 rows": (1024, 896, 151936),
    }
    for name, (rows, inner, columns) in shapes.items():
        if small:
            rows, inner, columns = rows // 64, inner // 64, columns // 64
        left, right = torch.randn(rows, inner, **BFLOAT16), torch.randn(columns, inner, **BFLOAT16)
        taken = milliseconds(lambda left=left, right=right: left @ right.T)  # type: ignore[misc]
        found[f"{name}, TFLOP/s"] = 2 * rows * inner * columns / taken / 1e9
    return found


def heads(small: bool) -> dict[str, Any]:
    """The losses of one micro-batch by rows per chunk, eager and compiled: [milliseconds, GiB beyond the inputs]."""
    vocabulary, width, teacher_width, rows = (1024, 32, 64, 300) if small else (151936, 896, 3584, 7432)
    hidden = torch.randn(rows, width, **BFLOAT16).requires_grad_()
    taught = torch.randn(rows, teacher_width, **BFLOAT16)
    head = (torch.randn(vocabulary, width, **BFLOAT16) / 30).requires_grad_()
    teacher_head = torch.randn(vocabulary, teacher_width, **BFLOAT16) / 60
    weights = torch.full((rows,), 1 / rows, device=DEVICE)
    found: dict[str, Any] = {}
    for compiled in (False, True):
        for chunk in (110, 512, 1024, 2048):

            def run(chunk: int = chunk, compiled: bool = compiled) -> None:
                loss = linear_divergence(
                    hidden, head, taught, teacher_head, weights=weights, chunk_rows=chunk, compiled=compiled
                ).loss
                torch.autograd.grad(loss, (hidden, head))

            before = torch.cuda.memory_allocated() if DEVICE.type == "cuda" else 0
            taken = milliseconds(run, rounds=3)
            peak = 0.0
            if DEVICE.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
                run()
                peak = (torch.cuda.max_memory_allocated() - before) / 2**30
            found[f"{'compiled' if compiled else 'eager'}, {chunk} rows"] = [round(taken, 1), round(peak, 2)]
    return found


def square(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Causal attention and its gradients, as many key heads as query heads."""
    output = scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.autograd.grad(output.sum(), (query, key, value))


def attention(small: bool) -> dict[str, Any]:
    """The main pass: with a padding mask as transformers builds it, without, and what a new length costs at first."""
    length = 32 if small else 880
    found: dict[str, Any] = {}
    for name, (heads, kv_heads, width) in {"teacher": (28, 4, 128), "student": (14, 2, 64)}.items():
        query = torch.randn(8, heads, length, width, **BFLOAT16).requires_grad_()
        key, value = (torch.randn(8, kv_heads, length, width, **BFLOAT16).requires_grad_() for _ in range(2))
        mask = torch.ones(length, length, dtype=torch.bool, device=DEVICE).tril()[None, None].expand(8, 1, -1, -1)
        groups = heads // kv_heads

        def masked(q: Tensor = query, k: Tensor = key, v: Tensor = value, m: Tensor = mask, g: int = groups) -> Tensor:
            wide = k.repeat_interleave(g, 1), v.repeat_interleave(g, 1)
            return scaled_dot_product_attention(q, *wide, attn_mask=m)

        def causal(q: Tensor = query, k: Tensor = key, v: Tensor = value) -> Tensor:
            return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

        for way, run in (("masked", masked), ("causal", causal)):

            def both(run: Callable[[], Tensor] = run, leaves: Any = (query, key, value)) -> None:
                torch.autograd.grad(run().sum(), leaves)

            found[f"{name}, {way}, forward"] = milliseconds(run)
            found[f"{name}, {way}, forward and backward"] = milliseconds(both)
        if DEVICE.type != "cuda":
            continue
        for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
            taken = []
            for extra in (1, 2, 3):
                leaves = [torch.randn(8, heads, length + extra, width, **BFLOAT16).requires_grad_() for _ in range(3)]
                with sdpa_kernel(backend):
                    taken.append(first_call(partial(square, *leaves)))
            found[f"{name}, first call at a new length, {backend.name}"] = [round(value, 1) for value in taken]
    return found


def elementwise(small: bool) -> dict[str, Any]:
    """A quarter of the teacher's layers forward: as transformers runs them, and compiled."""
    teacher = PRESETS["miniature" if small else "paper"].teacher
    layers = max(2, teacher.layers // 4)
    shape = Decoder(teacher.hidden, layers, teacher.heads, teacher.kv_heads, teacher.intermediate, 1024)
    inputs = torch.randn(8, 8 if small else 880, shape.hidden, **BFLOAT16)
    found: dict[str, Any] = {"layers": layers}

    @torch.no_grad()
    def run(model: Any) -> None:
        model.model(inputs_embeds=inputs, attention_mask=None, use_cache=False)

    model = build_decoder(shape, torch.bfloat16, DEVICE, 0).eval()
    found["eager"] = milliseconds(lambda: run(model))
    if fuse_layers(model, DEVICE):
        found["compiled layers, first call"] = first_call(lambda: run(model))
        found["compiled layers"] = milliseconds(lambda: run(model))
    return found


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--parts", nargs="+", default=["ceilings", "heads", "attention", "elementwise"])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    failed = False
    for part in (ceilings, heads, attention, elementwise):
        if part.__name__ not in arguments.parts:
            continue
        started = time.perf_counter()
        try:
            found[part.__name__] = part(arguments.small)
        except Exception:  # the next part still runs
            found[part.__name__], failed = traceback.format_exc(limit=4), True
        print(f"{part.__name__}, {time.perf_counter() - started:.1f} s: {json.dumps(found[part.__name__], indent=1)}")
        (arguments.out / "probe.json").write_text(json.dumps(found, indent=1))
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
