"""Permanent memory: weights, optimizer, gradients between micro-batches, and buffers.

ZeRO-1 divides the optimizer, ZeRO-2 the gradients too, ZeRO-3 the weights too, by the number of GPUs.
"""

from llava.train.plan.deepspeed_json import Zero
from llava.train.plan.run import Run, adapters
from llava.train.plan.sizes import shares_tower

CUDA_BYTES = 2**30
"""Memory of the CUDA context, the cuBLAS workspace and the NCCL buffers: assumed, not measured."""

TEACHER_GATHERED = 1_050_000_000
"""Maximum number of gathered weights of a sharded teacher: DeepSpeed's defaults."""

Parts = dict[str, float]
"""Bytes by part."""


def standing(run: Run, zero: Zero) -> Parts:
    """Permanently allocated bytes, by part.

    Args:
        run: The run.
        zero: Its DeepSpeed settings.
    """
    arguments, student, teacher = run.arguments, run.student, run.teacher
    gpus = arguments.plan_gpus
    split = gpus if zero.stage >= 3 else 1
    teacher_split = gpus if run.method is not None and run.method.sharded else 1
    shared = teacher is not None and shares_tower(student, teacher)
    own = student.total + adapters(student, arguments)
    parts = {"weights": 0.0 if zero.offloads_weights else own * arguments.weight / split}
    if zero.gathered:
        parts["gathered weights"] = min(own, zero.gathered) * arguments.weight
    if teacher is not None:
        whole = teacher.total - (teacher.tower.parameters if shared else 0)
        parts["teacher weights"] = whole * arguments.number / teacher_split
        if teacher_split > 1:
            parts["gathered teacher weights"] = min(whole, TEACHER_GATHERED) * arguments.number
    if arguments.gradient_accumulation_steps > 1 or zero.stage >= 2:
        parts["gradients"] = run.trained * arguments.weight / (gpus if zero.stage >= 2 else 1)
    if not zero.offloads_optimizer:
        parts["optimizer"] = run.trained * (12 if arguments.deepspeed else 8) / (gpus if zero.stage else 1)
    if zero.buckets:
        parts["DeepSpeed's buckets"] = zero.buckets * arguments.weight
    if not arguments.deepspeed and gpus > 1:
        parts["DDP's buckets"] = run.trained * arguments.weight
    if not arguments.use_cpu:
        parts["CUDA, assumed"] = CUDA_BYTES
    return parts
