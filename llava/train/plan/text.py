"""The plan as text."""

from dataclasses import replace

from llava.train.arguments import DataArguments, ModelArguments
from llava.train.plan.arguments import PlanArguments
from llava.train.plan.batch import Batch, longest_batch, usual_batch
from llava.train.plan.data import Samples, count_samples, steps
from llava.train.plan.flops import micro_batch_flops, step_seconds
from llava.train.plan.memory import Moment, peak
from llava.train.plan.method import Method
from llava.train.plan.run import Run, adapters
from llava.train.plan.sizes import ModelSize, model_size, teacher_size

GIB = 2**30

MEMORY_ERROR = 0.05
"""Largest error of planned memory in docs/results/plan_check.md, rounded up to a multiple of 5%."""

TIME_ERROR = 0.2
"""The same for the times of methods relative to vanilla KD."""

ROOM = 0.9
"""Share of a GPU's memory that a plan may fill; the rest is for allocator fragmentation."""


def plan(model: ModelArguments, data: DataArguments, arguments: PlanArguments, method: Method | None = None) -> str:
    """The plan as text.

    Args:
        model, data, arguments: The run's flags.
        method: Method, for a distillation.

    Raises:
        InputError: A configuration or the data cannot be read.
    """
    run = planned_run(model, arguments, method)
    samples = count_samples(data.data_path)
    usual = replace(run, batch=usual_batch(arguments, method, run.student.visual_tokens, samples.entries))
    most = peak(run)
    lines = [
        *_model_lines(run),
        *_data_lines(samples, usual.batch, arguments, run.student.visual_tokens),
        *_memory_lines(most, run),
        *_time_lines(usual, samples),
        *_notes(run, samples, usual.batch),
    ]
    return "\n".join(lines)


def planned_run(model: ModelArguments, arguments: PlanArguments, method: Method | None = None) -> Run:
    """The run with its longest micro-batch.

    Raises:
        InputError: A configuration cannot be found.
    """
    look = (model.mm_vision_select_layer, model.mm_vision_select_feature)
    student = model_size(model.model_name_or_path, model.vision_tower, model.mm_projector_type, *look)
    teacher = None
    if method is not None:
        teacher = teacher_size(method.teacher, student.tower.name, model.mm_projector_type, *look)
    return Run(
        student=student,
        trained=trained_parameters(student, model, arguments),
        arguments=arguments,
        batch=longest_batch(arguments, method, student.visual_tokens),
        trains_language=not (arguments.lora_enable or model.tune_mm_mlp_adapter or model.freeze_backbone),
        method=method,
        teacher=teacher,
    )


def trained_parameters(size: ModelSize, model: ModelArguments, arguments: PlanArguments) -> int:
    """Number of parameters that get gradients: those of the projector and the language model, never the tower. LLaVA's
    stage 1 leaves out the language model; LoRA trains adapters instead of it."""
    projector = 0 if arguments.freeze_mm_mlp_adapter else size.projector
    if arguments.lora_enable:
        return projector + adapters(size, arguments)
    return projector + (0 if model.tune_mm_mlp_adapter or model.freeze_backbone else size.language)


def _line(name: str, text: str) -> str:
    return f"{name:<15}{text}"


def _model_lines(run: Run) -> list[str]:
    size, teacher, arguments = run.student, run.teacher, run.arguments
    lines = [
        _line(
            "model",
            f"{size.name}: {size.total / 1e9:.3f} B parameters (tower {size.tower.parameters / 1e9:.3f}, projector "
            f"{size.projector / 1e9:.4f}, language model {size.language / 1e9:.3f})",
        ),
        _line("trained", f"{run.trained:,}; frozen {size.total + adapters(size, arguments) - run.trained:,}"),
    ]
    if teacher is not None:
        lines.append(_line("teacher", f"{teacher.name}: {teacher.total / 1e9:.3f} B parameters, frozen"))
    batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.plan_gpus
    budget = arguments.max_tokens_per_batch
    filled = f", in micro-batches of at most {budget:,} tokens" if budget else ""
    lines.append(
        _line(
            "batch",
            f"{batch} = {arguments.per_device_train_batch_size} per GPU x {arguments.plan_gpus} GPUs x "
            f"{arguments.gradient_accumulation_steps} accumulation steps{filled}",
        )
    )
    return lines


def _data_lines(samples: Samples, usual: Batch, arguments: PlanArguments, visual: int) -> list[str]:
    """Samples and steps; missing files are listed with the published number used instead."""
    image = f"one image is {visual} tokens"
    if samples.missing:
        lines = [_line("data", f"not found: {', '.join(map(str, samples.missing))}; {image}")]
    else:
        lines = [_line("data", f"{samples.number:,} samples; {image}")]
    for expected in samples.published:
        rounded = f", rounded to {expected.unit:,}" if expected.unit > 1 else ""
        lines.append(_line("", f"published: {expected.rows:,} samples{rounded} ({expected.stated_by})"))
    if samples.number is None:
        total = f"{arguments.max_steps:,}" if arguments.max_steps > 0 else "unknown without the data"
        return [*lines, _line("steps", total)]
    total_steps = steps(samples.number, arguments)
    batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.plan_gpus
    lines.append(
        _line(
            "steps",
            f"{total_steps:,}{' by the published numbers' if samples.missing else ''}; about "
            f"{total_steps * batch * usual.tokens / 1e9:.3g} B tokens, at most "
            f"{total_steps * batch * arguments.model_max_length / 1e9:.3g} B",
        )
    )
    return lines


def _memory_lines(most: Moment, run: Run) -> list[str]:
    arguments = run.arguments
    limit = arguments.plan_memory_gib
    lines = [
        _line(
            "memory per GPU",
            f"{most.total / GIB:.1f} GiB of {limit:g}, at the longest samples, during {most.when} "
            f"(error up to {MEMORY_ERROR:.0%} on a CPU; not measured on a GPU):",
        ),
        *(f"  {name:<31}{value / GIB:8.2f} GiB" for name, value in most.parts.items()),
    ]
    if most.total <= ROOM * limit * GIB:
        close = most.total * (1 + MEMORY_ERROR) > ROOM * limit * GIB
        return [*lines, _line("fits", "yes, but closely: watch the first steps" if close else "yes")]
    return [*lines, _line("fits", "no: lower the per-device batch, or use a higher ZeRO stage or offload")]


def _time_lines(usual: Run, samples: Samples) -> list[str]:
    """FLOPs of a typical micro-batch by part, and hours at the assumed speed."""
    arguments, batch = usual.arguments, usual.batch
    parts = micro_batch_flops(usual)
    whole = sum(parts.values())
    compute, sampling = step_seconds(usual)
    speed = (
        f"{arguments.plan_tflops:g} TFLOP/s per GPU (--plan_tflops) used at {arguments.plan_mfu:.0%} (--plan_mfu), "
        "both assumed"
    )
    if arguments.use_cpu and arguments.plan_tflops == PlanArguments.plan_tflops:
        head = "not estimated for a CPU; give --plan_tflops for an estimate"
    else:
        of = f"{compute + sampling:.2f} s per step"
        total = None
        if arguments.max_steps > 0 or samples.number is not None:
            total = steps(samples.number or 0, arguments)
            of = f"{total * (compute + sampling) / 3600:.1f} hours, {of}"
        head = f"{of}, at {speed}; not measured on a GPU"
    lines = [_line("time", head)]
    if sampling:
        lines.append(_line("", f"of these {sampling:.2f} s per step for the student's responses, one token at a time"))
    lines.append(
        _line(
            "FLOPs",
            f"{whole / 1e12:.3g} TFLOP a micro-batch of {batch.samples:.3g} samples of {batch.tokens:.0f} tokens, "
            f"{batch.visual:.0f} visual and {batch.response:.0f} supervised:",
        )
    )
    return [*lines, *(f"  {name:<31}{value / 1e12:8.3g} TFLOP" for name, value in parts.items())]


def _notes(run: Run, samples: Samples, usual: Batch) -> list[str]:
    arguments, method = run.arguments, run.method
    notes = []
    if not samples.entries:
        notes.append("the time is estimated with assumed sample lengths, since the data was not found")
    if method is not None and method.candidates:
        notes.append(
            f"candidates a supervised token: {run.batch.rows:g} in the memory, the most there can be, "
            f"{usual.rows:.2g} in the time; --plan_candidate_rows sets both"
        )
    if not arguments.use_cpu:
        notes.append(
            f"FLOPs told the times of methods, relative to vanilla KD's, within {TIME_ERROR:.0%} on a CPU "
            "(docs/results/plan_check.md); loading, data, checkpoints and evaluation take time on top"
        )
    if "adamw" not in arguments.optim or "8bit" in arguments.optim or "4bit" in arguments.optim:
        notes.append(f"the states of --optim {arguments.optim} are counted as AdamW's")
    sizes = [run.student, *([] if run.teacher is None else [run.teacher])]
    if any("published" in size.sources for size in sizes):
        notes.append("shapes of models that are not here are those of their published configs")
    for tower in {size.tower.name: size.tower for size in sizes if not size.tower.known}.values():
        notes.append(
            f"the vision tower {tower.name} and its visual tokens are not counted: its sizes are unknown here "
            "(pip install align-ti[towers])"
        )
    return [_line("note", note) for note in notes]
