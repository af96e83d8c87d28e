"""What ``--dry_run`` has to know about a distillation."""

import torch

from align_ti.attention.ribbon.sdpa import BLOCK
from align_ti.losses.iva import IVA_WEIGHTS
from align_ti.losses.linear_heads import default_chunk_rows
from align_ti.training.arguments import DistillArguments
from llava.train.plan import Method, PlanArguments


def planned_method(distill: DistillArguments, arguments: PlanArguments) -> Method:
    """The method that the flags ask for, as a plan sees it."""
    losses = set(distill.chosen_losses)
    device = torch.device("cpu" if arguments.use_cpu else "cuda")
    flash = arguments.half and not arguments.use_cpu and distill.ribbon_backend in ("auto", "flash")
    return Method(
        teacher=distill.teacher_path,
        chunk_rows=lambda vocabulary: default_chunk_rows(vocabulary, device),
        sharded=distill.teacher_zero3,
        response_rows=bool(losses & {"sft", "kd", "tpa", "pg"}),
        divergence=bool(losses & {"kd", "tpa", "pg"}),
        visual_rows="iva" in losses,
        candidates=distill.tpa_d if "tpa" in losses else 0,
        merged=distill.merge_draws,
        greedy=distill.tpa_sampling == "greedy",
        drawn_by_teacher=distill.tpa_draws_from == "teacher",
        interleaved=distill.ribbon == "algorithm1",
        ribbon_block=None if flash else BLOCK,
        attention_map="iva" in losses and IVA_WEIGHTS[distill.iva_weights] is not None,
        relations="rel" in losses,
        packing=distill.packing,
        on_policy=distill.on_policy_fraction,
        new_tokens=distill.on_policy_max_new_tokens,
    )
