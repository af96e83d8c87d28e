"""The facts about a distillation that ``--dry_run`` needs."""

import torch

from align_ti.attention.ribbon.sdpa import BLOCK
from align_ti.losses.loss import Compares, Loss, Reads, RowLoss
from align_ti.numerics import default_chunk_rows
from align_ti.training.arguments import DistillArguments
from llava.train.plan import Method, PlanArguments


def planned_method(distill: DistillArguments, arguments: PlanArguments) -> Method:
    """The plan's description of the method that the flags select."""
    objective = distill.objective
    losses = objective.build().values()
    responses = [loss for loss in losses if loss.reads is Reads.RESPONSES]
    visual = [loss.visual_rows for loss in losses if loss.reads is Reads.VISUAL_TOKENS]
    own = sum(isinstance(loss, RowLoss) and not isinstance(loss.compares, Compares) for loss in responses)
    drawing, ribbon = objective.candidates, objective.ribbon
    device, memory = torch.device("cpu" if arguments.use_cpu else "cuda"), int(arguments.plan_memory_gib * 2**30)
    flash = arguments.half and not arguments.use_cpu and ribbon.backend in ("auto", "flash")
    return Method(
        teacher=distill.teacher_path,
        chunk_rows=lambda vocabulary: default_chunk_rows(vocabulary, device, memory),
        sharded=distill.teacher_zero3,
        response_rows=own + (len(responses) > own),
        divergence=any(not _of_the_student_alone(loss) for loss in responses),
        visual_rows=bool(visual),
        drawn_rows=max(visual) if all(visual) and visual else 0,
        candidates=0 if drawing is None else drawing.d,
        merged=ribbon.merge_draws,
        greedy=drawing is not None and drawing.sampling == "greedy",
        drawn_by_teacher=drawing is not None and drawing.draws_from == "teacher",
        interleaved=ribbon.kind == "algorithm1",
        ribbon_block=None if flash else BLOCK,
        attention_map=objective.attention is not None,
        relations=any(loss.reads is Reads.VISUAL_PAIRS for loss in losses),
        packing=objective.packing is True or (objective.packing == "auto" and flash and ribbon.kind == "prefix"),
        on_policy=distill.on_policy_fraction,
        new_tokens=distill.on_policy_max_new_tokens,
    )


def _of_the_student_alone(loss: Loss) -> bool:
    return isinstance(loss, RowLoss) and loss.compares is Compares.CROSS_ENTROPY
