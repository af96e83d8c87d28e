"""Where a training step's time goes: its phases, its kernels, launches, and waits of the host.

python -m align_ti.studies.gpu.profile_step --preset paper --out DIR [--trace]
"""

import argparse
import gzip
import json
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

import align_ti.losses.tpa as tpa
from align_ti.studies.cost.methods import Bench
from align_ti.studies.cost.sizes import PRESETS

PHASE = "phase: "
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cuLaunchKernelEx", "cudaLaunchKernelExC")


def label(owner: Any, attribute: str, name: str | Callable[..., str]) -> None:
    """Show calls of a function as a phase in the profile."""
    function = getattr(owner, attribute)

    def labelled(*args: Any, **kwargs: Any) -> Any:
        with record_function(PHASE + (name if isinstance(name, str) else name(*args))):
            return function(*args, **kwargs)

    setattr(owner, attribute, labelled)


def label_phases(bench: Bench) -> None:
    """Name the passes, drawing, heads and the backward pass."""

    def whose(model: Any, *_: Any) -> str:
        return "teacher" if model in (bench.teacher, bench.teacher.model) else "student"

    label(tpa, "candidate_pass", lambda *args: f"candidates of the {whose(*args)}")
    for objective in bench.objectives.values():
        label(objective, "main_pass", lambda *args: f"main pass of the {whose(*args)}")
        label(objective, "candidates", "draw and lay out")
        label(objective, "evaluate", "heads and losses")
    label(torch.Tensor, "backward", "backward")


def host_waits(run: Callable[[], Any]) -> dict[str, int]:
    """Where the host waits for the GPU in a step, and how often: ``file:line`` of the waiting Python code."""
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    torch.cuda.set_sync_debug_mode("default")
    found = [warning for warning in caught if "synchronizing CUDA operation" in str(warning.message)]
    return dict(Counter(f"{warning.filename}:{warning.lineno}" for warning in found).most_common())


def summary(events: Any, step: float, launched: float, cuda: bool) -> dict[str, Any]:
    """Milliseconds by phase, launches and waits of one step."""
    phases = {
        event.key.removeprefix(PHASE): {
            "cpu_ms": round(event.cpu_time_total / 1e3, 1),
            "gpu_ms": round(event.device_time_total / 1e3, 1),
        }
        for event in events
        if event.key.startswith(PHASE)
    }
    found: dict[str, Any] = {"step_ms": round(step * 1e3, 1), "host_ms": round(launched * 1e3, 1), "phases": phases}
    if cuda:
        busy = sum(event.self_device_time_total for event in events if not event.key.startswith(PHASE)) / 1e6
        found["gpu_busy_ms"] = round(busy * 1e3, 1)
        found["launches"] = sum(event.count for event in events if event.key in LAUNCHES)
        found["waits"] = {
            event.key: event.count for event in events if "Synchronize" in event.key or event.key == "cudaMemcpyAsync"
        }
    return found


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="paper")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--methods", nargs="+", default=["vanilla_kd", "align_ti"])
    parser.add_argument("--packing", action="store_true")
    parser.add_argument("--compile_losses", action="store_true")
    parser.add_argument("--fuse_layers", action="store_true", help="compile the layers of both models")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trace", action="store_true", help="also write a trace for chrome://tracing")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    cuda = device.type == "cuda"
    wait = torch.cuda.synchronize if cuda else lambda: None
    options = {"packing": arguments.packing, "compile_losses": arguments.compile_losses}
    options["fused"] = arguments.fuse_layers
    bench = Bench(PRESETS[arguments.preset], device, **options)
    label_phases(bench)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for method in arguments.methods:
        run = bench.step(method)
        for _ in range(2):
            run()
        times = []
        for _ in range(3):
            wait()
            started = time.perf_counter()
            run()
            launched = time.perf_counter() - started
            wait()
            times.append((time.perf_counter() - started, launched))
        places = host_waits(run) if cuda else {}
        with profile(activities=activities, acc_events=True) as recorded:
            run()
            wait()
        events = recorded.key_averages()
        step, launched = (statistics.median(column) for column in zip(*times, strict=True))
        results[method] = {**summary(events, step, launched, cuda), "waits_at": places}
        order = "self_device_time_total" if cuda else "self_cpu_time_total"
        print(events.table(sort_by=order, row_limit=30, max_name_column_width=80))
        if arguments.trace:
            file = arguments.out / f"trace_{method}.json"
            recorded.export_chrome_trace(str(file))
            (arguments.out / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    (arguments.out / "profile.json").write_text(json.dumps(results, indent=1))
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
