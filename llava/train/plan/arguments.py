"""The flags of ``--dry_run``: those of the run, which must all be known, and the plan's own."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from llava.errors import InputError
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments
from llava.train.parsing import FlagParser, refuse_unknown, renamed


@dataclass
class PlanFlags:
    """Flags used only with ``--dry_run``."""

    dry_run: bool = field(default=True, metadata={"help": "print the plan of the run and stop"})
    plan_gpus: int = field(default=1, metadata={"help": "number of processes of the run"})
    plan_memory_gib: float = field(default=80.0, metadata={"help": "memory of one GPU in GiB"})
    plan_tflops: float = field(
        default=989.0, metadata={"help": "peak speed of one GPU in TFLOP/s; the default is an H100 or H200 in bfloat16"}
    )
    plan_mfu: float = field(default=0.4, metadata={"help": "assumed share of the peak speed (MFU), 0 to 1"})
    plan_candidate_rows: float | None = field(
        default=None, metadata={"help": "candidate rows per supervised token, as logged by a run"}
    )

    def __post_init__(self) -> None:
        for name in ("plan_gpus", "plan_memory_gib", "plan_tflops"):
            if getattr(self, name) <= 0:
                raise InputError(f"--{name} is {getattr(self, name)}; expected a number above 0")
        if not 0 < self.plan_mfu <= 1:
            raise InputError(f"--plan_mfu is {self.plan_mfu}; expected a share above 0 and up to 1, such as 0.4")
        if self.plan_candidate_rows is not None and self.plan_candidate_rows < 0:
            raise InputError(f"--plan_candidate_rows is {self.plan_candidate_rows}; expected a number from 0")


@dataclass
class PlanArguments(PlanFlags):
    """Everything that a plan depends on: its own flags, and some of the training arguments under the same names."""

    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    max_tokens_per_batch: int = 0
    num_train_epochs: float = 1.0
    max_steps: int = -1
    model_max_length: int = 512
    bf16: bool = False
    fp16: bool = False
    use_cpu: bool = False
    optim: str = "adamw_torch_fused"
    gradient_checkpointing: bool = False
    freeze_mm_mlp_adapter: bool = False
    deepspeed: str | None = None
    lora_enable: bool = False
    lora_r: int = 64

    @property
    def half(self) -> bool:
        """Whether the models compute in half precision."""
        return self.bf16 or self.fp16

    @property
    def autocast(self) -> bool:
        """Whether weights stay in float32 and are cast for every matrix product: half precision without DeepSpeed."""
        return self.half and not self.deepspeed

    @property
    def number(self) -> int:
        """Bytes per number in the output of a matrix product."""
        return 2 if self.half else 4

    @property
    def weight(self) -> int:
        """Bytes per weight of a trained model."""
        return 4 if self.autocast else self.number


def plan_asked_for(argv: Sequence[str] | None = None) -> bool:
    """Whether the command line contains ``--dry_run`` (and not ``--dry_run False``)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for index, argument in enumerate(argv):
        flag, _, value = argument.partition("=")
        if flag == "--dry_run":
            return (value or "".join(argv[index + 1 : index + 2])).lower() not in ("false", "0", "no")
    return False


@cache
def _parser(classes: tuple[type, ...]) -> FlagParser:
    return FlagParser(PlanFlags, ModelArguments, DataArguments, TrainingArguments, *classes)


def known_flags(*classes: type) -> frozenset[str]:
    """All flags that a dry run accepts, with their dashes (``--learning_rate``).

    Args:
        classes: Dataclasses of the run in addition to LLaVA's three.
    """
    return _parser(classes).flags


def parse_plan(*classes: type, argv: Sequence[str] | None = None) -> tuple[Any, ...]:
    """Parse the command line of a dry run.

    The training arguments are parsed but not constructed, because constructing them would require the planned GPUs.

    Args:
        classes: Dataclasses of the run in addition to LLaVA's three.
        argv: Arguments; ``sys.argv[1:]`` by default.

    Returns:
        ``PlanArguments``, ``ModelArguments``, ``DataArguments`` and one instance of each of ``classes``.

    Raises:
        InputError: A flag is unknown to the run and the plan (the message names the nearest known one), a value has the
            wrong type, or a number of the plan is out of range.
    """
    values, unknown = _parser(classes).parse_known_args(renamed(sys.argv[1:] if argv is None else argv))
    refuse_unknown(unknown, known_flags(*classes))
    return tuple(
        kind(**{entry.name: getattr(values, entry.name) for entry in fields(kind) if entry.init})  # type: ignore[arg-type]
        for kind in (PlanArguments, ModelArguments, DataArguments, *classes)
    )
