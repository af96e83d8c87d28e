"""``--dry_run``: what a run would do, need and take, worked out from configurations alone.

No weight is loaded and nothing is allocated. The formulas are in ``memory`` and ``flops``, the sizes in ``sizes``.
"""

from llava.train.plan.arguments import PlanArguments, known_flags, parse_plan, plan_asked_for
from llava.train.plan.method import Method
from llava.train.plan.text import plan

__all__ = ["Method", "PlanArguments", "known_flags", "parse_plan", "plan", "plan_asked_for"]
