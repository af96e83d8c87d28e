"""The description of a run that a plan is computed from."""

from dataclasses import dataclass

from llava.train.plan.arguments import PlanArguments
from llava.train.plan.batch import Batch
from llava.train.plan.method import Method
from llava.train.plan.sizes import ModelSize


@dataclass(frozen=True)
class Run:
    """Everything that memory and time depend on.

    Attributes:
        student: The trained model.
        trained: Parameters that get gradients.
        arguments: The run's flags.
        batch: A micro-batch.
        trains_language: Whether all weights of the language model are trained.
        method, teacher: Method and teacher, for a distillation.
    """

    student: ModelSize
    trained: int
    arguments: PlanArguments
    batch: Batch
    trains_language: bool = True
    method: Method | None = None
    teacher: ModelSize | None = None


def adapters(size: ModelSize, arguments: PlanArguments) -> int:
    """Parameters of the LoRA adapters; 0 without ``--lora_enable``."""
    return arguments.lora_r * size.adapted if arguments.lora_enable else 0
