"""``--dry_run``: steps, memory, FLOPs and time of a run, computed from configurations alone.

No weights are loaded and no memory is allocated. The formulas are in ``memory`` and ``flops``, the sizes in ``sizes``.
"""

from llava.train.plan.arguments import PlanArguments, known_flags, parse_plan, plan_asked_for
from llava.train.plan.method import Method
from llava.train.plan.text import plan

__all__ = ["Method", "PlanArguments", "known_flags", "parse_plan", "plan", "plan_asked_for"]
