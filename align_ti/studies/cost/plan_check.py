"""Check the plan (``--dry_run``) against measurements on a CPU, with small models.

    python -m align_ti.studies.cost.plan_check --out docs/results

Memory: every command runs with the real trainer while the sizes of all live tensors are summed (``train_peak.py``), and
is planned for batches of the same lengths. FLOPs and time: the benchmark's steps (``__main__.py``) are counted and
timed. Times are compared as ratios to vanilla KD's, since a GPU's utilisation, which turns FLOPs into hours, cannot be
measured on a CPU.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from align_ti.studies.common.measure import flop_counter, ratio, seconds
from align_ti.studies.common.provenance import run_facts
from align_ti.studies.common.report import markdown_page, markdown_table, write_report
from align_ti.studies.cost.methods import METHODS, Bench
from align_ti.studies.cost.plan_world import PlanWorld, make_world, sample_lengths, visual_tokens
from align_ti.studies.cost.sizes import Decoder, Geometry
from align_ti.training.arguments import DistillArguments
from align_ti.training.plan_facts import planned_method
from llava.errors import InputError, run_cli
from llava.train.plan.arguments import PlanArguments, parse_plan
from llava.train.plan.batch import Batch
from llava.train.plan.flops import micro_batch_flops
from llava.train.plan.memory import peak
from llava.train.plan.run import Run
from llava.train.plan.sizes import DecoderShape, ModelSize, TowerSize
from llava.train.plan.text import planned_run

REPOSITORY = Path(__file__).resolve().parents[3]
MIB = 2**20
REFERENCE = "vanilla_kd"
LONGEST = 2048
GEOMETRY = Geometry(  # shorter than the benchmark's, so that the check takes minutes
    teacher=Decoder(384, 8, 6, 2, 1152, 8192),
    student=Decoder(160, 6, 5, 1, 480, 8192, tied=True),
    prompt=400,
    visual=350,
    instruction=20,
    responses=(60,),
)
LAYER = ("--iva_layer", "4")


class Case(NamedTuple):
    """A command whose memory is measured.

    Attributes:
        flags: Its flags.
        losses: Its losses if it is a distillation, else None.
        processes: Number of processes.
        padded: Whether samples have two lengths, so that batches are padded.
    """

    flags: tuple[str, ...] = ()
    losses: str | None = None
    processes: int = 1
    padded: bool = False


CHECKPOINTED = ("--gradient_checkpointing", "True")
ALGORITHM1 = ("--ribbon", "algorithm1")
ON_POLICY = ("--on_policy_fraction", "1", "--on_policy_max_new_tokens", "64")
ZERO2 = ("--bf16", "True", "--deepspeed", str(REPOSITORY / "scripts/deepspeed/zero2.json"))
ALL = "sft,kd,iva,tpa"
CASES = {
    "SFT": Case(),
    "SFT, stage 1": Case(("--tune_mm_mlp_adapter", "True")),
    "SFT, LoRA": Case(("--lora_enable", "True", "--lora_r", "16")),
    "vanilla KD": Case(losses="sft,kd"),
    "KD + IVA": Case(losses="sft,kd,iva"),
    "KD + TPA, prefix": Case(losses="sft,kd,tpa"),
    "KD + TPA, Algorithm 1": Case(ALGORITHM1, "sft,kd,tpa"),
    "all four": Case(losses=ALL),
    "GKD": Case(ON_POLICY, "kd"),
    "SFT, padded": Case(padded=True),
    "all four, padded": Case(losses=ALL, padded=True),
    "SFT, checkpointing": Case(CHECKPOINTED),
    "vanilla KD, checkpointing": Case(CHECKPOINTED, "sft,kd"),
    "Algorithm 1, checkpointing": Case((*CHECKPOINTED, *ALGORITHM1), "sft,kd,tpa"),
    "all four, checkpointing": Case(CHECKPOINTED, ALL),
    "SFT, ZeRO-2, bf16": Case(ZERO2, processes=2),
    "all four, ZeRO-2, bf16": Case(ZERO2, ALL, processes=2),
}


def check_memory(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Measured and planned memory in MiB, by case."""
    world = make_world(folder)
    common = [
        "--vision_tower", str(world.tower), "--mm_projector_type", "mlp2x_gelu", "--version", "qwen",
        "--image_folder", str(world.images), "--data_path", str(world.data), "--model_max_length", str(LONGEST),
        "--use_cpu", "True", "--report_to", "none", "--save_strategy", "no", "--disable_tqdm", "True",
        "--dataloader_pin_memory", "False", "--logging_steps", "1", "--max_steps", "2",
    ]  # fmt: skip
    teacher = folder / "teacher"
    _train("llava.train.train", [*common, "--model_name_or_path", str(world.teacher_lm), "--output_dir", str(teacher)])
    results: dict[str, dict[str, Any]] = {}
    for name in names:
        case = CASES[name]
        out = folder / f"run-{len(results)}"
        flags = [*common, "--model_name_or_path", str(world.student_lm), "--output_dir", str(out)]
        flags += ["--per_device_train_batch_size", "4", *case.flags]
        if case.padded:
            flags += ["--data_path", str(world.mixed_data)]
        if case.losses is not None:
            flags += ["--teacher_path", str(teacher), "--losses", case.losses, *LAYER]
        measured = _train(
            "llava.train.train" if case.losses is None else "align_ti.training.train", flags, case.processes
        )
        log = json.loads((out / "trainer_state.json").read_text())["log_history"]
        rows = [entry["candidate_rows"] for entry in log if "candidate_rows" in entry]
        moment = peak(plan_of(world, flags, case, max(rows, default=0.0)))
        results[name] = {
            "measured_mib": measured / MIB,
            "planned_mib": moment.total / MIB,
            "error": moment.total / measured - 1,
            "peak": moment.when,
            "candidate_rows": max(rows, default=0.0),
        }
        logging.info("%s: %s", name, results[name])
    return results


def plan_of(world: PlanWorld, flags: list[str], case: Case, rows: float) -> Run:
    """The plan of ``--dry_run`` for a command, with batches of the data's lengths."""
    argv = [*flags, "--plan_gpus", str(case.processes)]
    if case.losses is None:
        arguments, model, _ = parse_plan(argv=argv)
        method = None
    else:
        arguments, model, _, distill = parse_plan(DistillArguments, argv=argv)
        method = planned_method(distill, arguments)
    tokens, response = sample_lengths(world, LONGEST)
    batch = Batch(arguments.per_device_train_batch_size, tokens, visual_tokens(), response, rows, case.padded)
    return replace(planned_run(model, arguments, method), batch=batch)


def _train(module: str, flags: list[str], processes: int = 1) -> int:
    """Run a training command in a separate process; returns its peak memory in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "peak.json"
        start = [sys.executable]
        if processes > 1:
            start += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [*start, "-m", "align_ti.studies.cost.train_peak", str(out), module, *flags]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
        if not out.exists():
            raise InputError(f"{module} {' '.join(flags)} failed:\n{done.stderr[-2000:]}")
        return int(json.loads(out.read_text())["bytes"])


def check_flops(geometry: Geometry) -> dict[str, dict[str, float]]:
    """Counted and planned FLOPs, and measured and planned times relative to vanilla KD, by method of the benchmark."""
    device = torch.device("cpu")
    work = Bench(geometry, device)
    runs = {name: work.step(name) for name in METHODS}
    results: dict[str, dict[str, float]] = {}
    for name, run in runs.items():
        with flop_counter() as counter:
            run()
        planned = bench_run(geometry, name)
        results[name] = {
            "counted_tflop": counter.get_total_flops() / 1e12,
            "planned_tflop": sum(micro_batch_flops(planned).values()) / 1e12,
        }
    taken = seconds(runs, geometry.rounds, device)
    for name, result in results.items():
        result["flops_error"] = result["planned_tflop"] / result["counted_tflop"] - 1
        result["time_ratio"] = ratio(taken[name], taken[REFERENCE])
        result["planned_time_ratio"] = result["planned_tflop"] / results[REFERENCE]["planned_tflop"]
        result["time_error"] = result["planned_time_ratio"] / result["time_ratio"] - 1
    return results


def bench_run(geometry: Geometry, name: str) -> Run:
    """A method of the benchmark as the plan's description of a run."""
    flags = {"tpa_d": geometry.d, **{flag: value for flag, value in METHODS[name].items() if flag != "losses"}}
    distill = DistillArguments(
        teacher_path="teacher",
        losses=",".join(METHODS[name]["losses"]),
        on_policy_fraction=float(name == "gkd"),
        on_policy_max_new_tokens=max(geometry.responses),
        **flags,
    )
    arguments = PlanArguments(use_cpu=True, per_device_train_batch_size=len(geometry.responses))
    method = planned_method(distill, arguments)
    response = sum(geometry.responses) / len(geometry.responses)
    rows = (geometry.rows if method.merged else geometry.d) if method.candidates else 0.0
    return Run(
        student=decoder_size("student", geometry.student),
        trained=0,
        arguments=arguments,
        batch=Batch(len(geometry.responses), geometry.prompt + response, geometry.visual, response, rows),
        method=method,
        teacher=decoder_size("teacher", geometry.teacher),
    )


def decoder_size(name: str, decoder: Decoder) -> ModelSize:
    """The size of a decoder of the benchmark, which has neither tower nor projector."""
    shape = DecoderShape(
        decoder.hidden, decoder.layers, decoder.heads, decoder.kv_heads, decoder.hidden // decoder.heads,
        decoder.intermediate, decoder.vocabulary, decoder.tied,
    )  # fmt: skip
    head = shape.vocabulary * shape.hidden
    tower = TowerSize("none")
    return ModelSize(
        name, tower, 0, head, shape.layers * shape.products, 0 if shape.tied else head, shape, 0, frozenset()
    )


def worst(results: dict[str, dict[str, Any]], key: str, leave_out: tuple[str, ...] = ()) -> float:
    """The largest absolute error of one kind."""
    return max(abs(result[key]) for name, result in results.items() if name not in leave_out)


def markdown(report: dict[str, Any]) -> list[str]:
    """Both comparisons as Markdown."""
    memory = [
        [name, f"{row['measured_mib']:.0f}", f"{row['planned_mib']:.0f}", f"{row['error']:+.1%}", row["peak"]]
        for name, row in report["memory"].items()
    ]
    flops = [
        [
            name,
            f"{row['counted_tflop']:.4f}",
            f"{row['planned_tflop']:.4f}",
            f"{row['flops_error']:+.1%}",
            f"{row['time_ratio']:.2f}",
            f"{row['planned_time_ratio']:.2f}",
            f"{row['time_error']:+.0%}",
        ]
        for name, row in report["flops"].items()
    ]
    return [
        "Predictions of `--dry_run` compared with measurements, **on a CPU only**: small models, the real trainer, all "
        "live tensors counted. The CUDA context, fragmentation of the allocator and kernels that exist only on GPUs "
        "are not included.",
        f"Memory: at most {report['memory_error']:.1%} off.",
        markdown_table(["command", "measured MiB", "planned MiB", "error", "at the peak"], memory),
        f"FLOPs (of attention, only the causal half): at most {report['flops_error']:.1%} off. Time as a multiple of "
        f"vanilla KD's: at most {report['time_error']:.0%} off, except for GKD, which samples one token at a time; "
        "FLOPs do not predict how long that takes.",
        markdown_table(
            ["method", "counted TFLOP", "planned TFLOP", "error", "time, measured", "time, planned", "error"], flops
        ),
    ]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), help="commands to measure")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds")
    parser.add_argument("--out", type=Path, required=True, help="output folder of the results (JSON and Markdown)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        memory = check_memory(Path(folder), arguments.cases)
    flops = check_flops(replace(GEOMETRY, rounds=arguments.rounds))
    report = {
        "memory_error": worst(memory, "error"),
        "flops_error": worst(flops, "flops_error"),
        "time_error": worst(flops, "time_error", leave_out=("gkd",)),
        "memory": memory,
        "flops": flops,
    }
    facts = run_facts("align_ti.studies.cost.plan_check")
    text = markdown_page("Errors of the plan", markdown(report), facts)
    write_report(arguments.out, "plan_check", {**facts, **report}, text)
    print(text)


if __name__ == "__main__":
    run_cli(main)
