"""Measure what Align-TI costs against vanilla KD, Algorithm 1 and GKD.

    python -m align_ti.studies.cost --preset laptop --rows_from playground/mini/runs/student-align-ti --out DIR
    python -m align_ti.studies.cost --preset paper --out DIR          (one large GPU)
    python -m align_ti.studies.cost --preset paper --batch_size 1 --count_only      (FLOPs alone; any machine)

FLOPs are counted (products and attention, forward and backward), wall time is a ratio of steps that ran in turn, and
memory is the most that was alive. No tower and no optimizer step is included: they cost every method the same.
"""

import argparse
import json
import logging
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import torch

from align_ti.studies.common.measure import flop_counter, peak_memory, ratio, seconds
from align_ti.studies.common.provenance import cpu_name, run_facts
from align_ti.studies.common.report import markdown_page, markdown_table, write_report
from align_ti.studies.cost.heads import head_memory
from align_ti.studies.cost.methods import METHODS, Bench
from align_ti.studies.cost.sizes import PRESETS, Geometry
from align_ti.studies.cost.uncomputed import Uncomputed
from llava.errors import InputError, run_cli

PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0}
"""Dense bf16 peak by a part of the device's name (data sheets), for the model FLOPs utilisation."""

REFERENCE = "vanilla_kd"


def measured_rows(run: Path) -> float:
    """Mean candidate rows per step that a training run logged.

    Raises:
        InputError: The folder holds no log with them.
    """
    file = run / "trainer_state.json"
    try:
        log = json.loads(file.read_text())["log_history"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{file} is not the log of a training run ({error})") from error
    rows = [entry["candidate_rows"] for entry in log if "candidate_rows" in entry]
    if not rows:
        raise InputError(f"{file} logged no candidate_rows; was tpa among its losses?")
    return statistics.mean(rows)


def device_name(device: torch.device) -> str:
    """What the figures were measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()}, {torch.get_num_threads()} threads"


def count(work: Bench, name: str) -> dict[str, float]:
    """TFLOP of one step of a method: ``tflops``, and of these ``head_tflops`` through the heads."""
    # Under the counter torch.compile would skip what it compiles, for good: what was called there first never runs
    # compiled in this process. So nothing is compiled while FLOPs are counted.
    with flop_counter() as counter, torch.compiler.set_stance("force_eager"):
        work.objectives[name].counter = counter
        work.step(name)()
    work.objectives[name].counter = None
    return {"tflops": counter.get_total_flops() / 1e12, "head_tflops": work.objectives[name].head_flops / 1e12}


def add_flops_ratios(results: dict[str, dict[str, float]]) -> None:
    """Add ``flops_ratio``, to the reference, and ``flops_ratio_outside_heads``."""
    base = results[REFERENCE]
    outside = base["tflops"] - base["head_tflops"]
    for result in results.values():
        result["flops_ratio"] = result["tflops"] / base["tflops"]
        result["flops_ratio_outside_heads"] = (result["tflops"] - result["head_tflops"]) / outside


def sizes(work: Bench, settings: dict[str, Any]) -> dict[str, Any]:
    """What the figures of a report are for."""
    geometry = work.geometry
    return {
        "dtype": str(geometry.dtype).removeprefix("torch."),
        "tokens_per_step": geometry.tokens,
        "supervised_tokens": sum(geometry.responses),
        "d": geometry.d,
        "candidate_rows_per_step": geometry.rows,
        "parameters": {
            "teacher": sum(parameter.numel() for parameter in work.teacher.parameters()),
            "student": sum(parameter.numel() for parameter in work.student.parameters()),
        },
        "settings": settings,
    }


def count_only(geometry: Geometry, methods: list[str], **settings: Any) -> dict[str, Any]:
    """FLOPs of the methods, on the CPU and without computing a product; a dictionary for JSON.

    ``settings`` go to ``Bench``.
    """
    work = Bench(geometry, torch.device("cpu"), computed=False, **settings)
    with Uncomputed():
        results = {name: count(work, name) for name in methods}
    add_flops_ratios(results)
    return {"torch": torch.__version__, **sizes(work, settings), "methods": results}


def bench(geometry: Geometry, device: torch.device, methods: list[str], **settings: Any) -> dict[str, Any]:
    """Measure the methods; a dictionary for JSON. ``settings`` go to ``Bench``."""
    work = Bench(geometry, device, **settings)
    results: dict[str, dict[str, float]] = {}
    runs = {name: work.step(name) for name in methods}
    for name, run in runs.items():
        results[name] = count(work, name)
        run()  # compiles what is compiled, before memory is watched
        results[name]["peak_mib"] = peak_memory(run, (work.student, work.teacher), device) / 2**20
    taken = seconds(runs, geometry.rounds, device)
    peak = next((value for part, value in PEAK_TFLOPS.items() if part in device_name(device)), None)
    base = results[REFERENCE]
    add_flops_ratios(results)
    for name, result in results.items():
        result["seconds"] = statistics.median(taken[name])
        result["tokens_per_second"] = geometry.tokens / result["seconds"]
        if peak:
            result["mfu"] = result["tflops"] / result["seconds"] / peak
        result["time_ratio"] = ratio(taken[name], taken[REFERENCE])
        result["memory_ratio"] = result["peak_mib"] / base["peak_mib"]
    return {
        "device": device_name(device),
        "torch": torch.__version__,
        **sizes(work, settings),
        "rounds": geometry.rounds,
        "methods": results,
    }


class Column(NamedTuple):
    """A figure in the tables: its headings as text and in Markdown, its name in the report, its decimals in both. In
    a table with an empty heading it does not appear."""

    short: str
    long: str
    name: str
    decimals: int
    fewer: int = 2


COLUMNS = (
    Column("FLOPs", "FLOPs", "flops_ratio", 3),
    Column("no heads", "FLOPs outside the heads", "flops_ratio_outside_heads", 3),
    Column("time", "wall time", "time_ratio", 2),
    Column("memory", "peak memory", "memory_ratio", 2),
    Column("TFLOP", "", "tflops", 3),
    Column("s", "s per step", "seconds", 3),
    Column("tokens/s", "", "tokens_per_second", 0),
    Column("MiB", "MiB", "peak_mib", 0, 0),
)


def measured(report: dict[str, Any]) -> list[Column]:
    """The columns that a report has."""
    return [column for column in COLUMNS if column.name in report["methods"][REFERENCE]]


def table(report: dict[str, Any]) -> str:
    """The ratios and absolute figures as text."""
    columns = measured(report)
    rows = [["method", *(column.short for column in columns)]]
    for name, result in report["methods"].items():
        rows.append([name, *(f"{result[column.name]:.{column.decimals}f}" for column in columns)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(lines)


def markdown(report: dict[str, Any]) -> str:
    """The ratios to the reference, and its sizes, as Markdown."""
    columns = [column for column in measured(report) if column.long]
    rows = [
        [name, *(f"{result[column.name]:.{column.fewer}f}" for column in columns)]
        for name, result in report["methods"].items()
    ]
    shown = ("dtype", "tokens_per_step", "supervised_tokens", "d", "candidate_rows_per_step", "rounds")
    given = "; ".join(f"{name.replace('_', ' ')}: {report[name]}" for name in shown if name in report)
    settings = ", ".join(f"{name} {value}" for name, value in report["settings"].items())
    ratios = markdown_table(["method", *(column.long for column in columns)], rows)
    return f"{ratios}\n\n{given}; {settings}. Parameters: " + ", ".join(
        f"{role} {number:,}" for role, number in report["parameters"].items()
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="laptop")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch_size", type=int, help="samples of the preset's first response length")
    parser.add_argument("--d", type=int, help="draws per step")
    parser.add_argument("--rows", type=float, help="candidate rows per step that merging leaves")
    parser.add_argument("--rows_from", type=Path, help="folder of a training run whose logged rows are taken")
    parser.add_argument("--rounds", type=int, help="timed rounds")
    parser.add_argument("--backend", default="auto", help="of the ribbon: auto, sdpa, flash or flex")
    parser.add_argument("--packing", action="store_true", help="no padding in the main pass")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing of the student")
    parser.add_argument("--compile_losses", action="store_true", help="fuse the losses with torch.compile")
    parser.add_argument("--fuse_layers", action="store_true", help="compile the layers of both models (on a GPU)")
    parser.add_argument(
        "--count_only", action="store_true", help="FLOPs alone, on the CPU and without computing the products"
    )
    parser.add_argument("--heads", action="store_true", help="also the divergence's memory at 1,000 rows x 152k")
    parser.add_argument("--out", type=Path, help="folder of the results, as JSON and Markdown")
    parser.add_argument("--name", default="bench", help="of the results' files")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if REFERENCE not in arguments.methods:
        raise InputError(f"--methods needs {REFERENCE}: the others are measured against it")
    geometry = PRESETS[arguments.preset]
    rows = measured_rows(arguments.rows_from) if arguments.rows_from else arguments.rows
    responses = (geometry.responses[0],) * arguments.batch_size if arguments.batch_size else None
    geometry = geometry.with_changes(d=arguments.d, rows=rows, rounds=arguments.rounds, responses=responses)
    if not 0 <= geometry.rows <= geometry.d:
        raise InputError(f"{geometry.rows} candidate rows per step; expected 0 to d = {geometry.d}")
    settings = {
        **{name: getattr(arguments, name) for name in ("backend", "packing", "checkpointing", "compile_losses")},
        "fused": arguments.fuse_layers,
    }
    if arguments.count_only:
        report = count_only(geometry, arguments.methods, **settings)
    else:
        report = bench(geometry, torch.device(arguments.device), arguments.methods, **settings)
    shown = ("device", "dtype", "tokens_per_step", "supervised_tokens", "d", "candidate_rows_per_step", "parameters")
    print("\n".join(f"{name}: {report[name]}" for name in shown if name in report))
    print(table(report))
    if arguments.heads:
        report["head_memory"] = head_memory(torch.device(arguments.device))
        print(
            "divergence at 1,000 rows x 152,064, MiB beyond its inputs: {plain:.0f} plain, {chunked:.0f} chunked, "
            "ratio {ratio:.2f}".format(**report["head_memory"])
        )
    if arguments.out:
        facts = run_facts("align_ti.studies.cost")
        text = markdown_page("What a training step costs", [markdown(report)], facts)
        write_report(arguments.out, arguments.name, {"preset": arguments.preset, **facts, **report}, text)


if __name__ == "__main__":
    run_cli(main)
