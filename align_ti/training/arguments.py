"""Command-line arguments of the distillation stage."""

from dataclasses import dataclass, field
from typing import TypeVar

from align_ti.config import FLAGS, PAPER, ObjectiveConfig, flag_name
from align_ti.losses.loss import Steps
from align_ti.losses.registry import LOSSES
from align_ti.settings import SettingError, auto_or_bool
from align_ti.training.on_policy import OnPolicySettings
from llava.errors import InputError

T = TypeVar("T", bound=type)


def with_objective_flags(kind: T) -> T:
    """Class decorator below ``@dataclass``: adds a field for every setting of ``ObjectiveConfig``."""
    kind.__annotations__ = {**kind.__annotations__, **{name: flag.type for name, flag in FLAGS.items()}}
    for name, flag in FLAGS.items():
        # A bare `--packing` is True, as for the flags that argparse knows to be switches.
        bare = {"nargs": "?", "const": True} if flag.type is auto_or_bool else {}
        setattr(kind, name, field(default=flag.default, metadata={"help": flag.help, **bare}))
    return kind


@dataclass
@with_objective_flags
class DistillArguments:
    """Teacher, losses (Eq. 8) and on-policy steps; flags of the losses are added from ``ObjectiveConfig``."""

    teacher_path: str = field(metadata={"help": "a finished LLaVA-style checkpoint: folder or hub name"})
    teacher_zero3: bool = field(
        default=False, metadata={"help": "split the teacher over the ranks (DeepSpeed ZeRO-3) instead of copying it"}
    )
    allow_teacher_mismatch: bool = field(
        default=False,
        metadata={"help": "train, with a warning, although the teacher was tuned on other images or another prompt"},
    )
    losses: str = field(default=",".join(PAPER), metadata={"help": f"comma-separated subset of {', '.join(LOSSES)}"})
    irs_inputs: int = field(default=256, metadata={"help": "training samples from which auto estimates the IRS"})
    irs_pairs: int = field(default=1000, metadata={"help": "pairs of them (the paper: 1,000)"})
    on_policy_fraction: float = field(
        default=0.0, metadata={"help": "probability that a step trains on the student's own responses (GKD's lambda)"}
    )
    on_policy_temperature: float = field(default=1.0, metadata={"help": "temperature of the student's responses"})
    on_policy_max_new_tokens: int = field(default=128, metadata={"help": "longest response of the student, in tokens"})

    def __post_init__(self) -> None:
        chosen = self.chosen_losses
        unknown = sorted(set(chosen) - set(LOSSES))
        if unknown or not chosen or len(set(chosen)) != len(chosen):
            raise InputError(f"--losses {self.losses!r}: expected a comma-separated subset of {', '.join(LOSSES)}")
        self._check_on_policy(self.objective)
        if self.irs_inputs < 2 or self.irs_pairs < 1:
            raise InputError("--irs_inputs must be at least 2 and --irs_pairs at least 1")

    def _check_on_policy(self, objective: ObjectiveConfig) -> None:
        fraction, losses = self.on_policy(seed=0).fraction, objective.build().values()
        for loss in losses:
            if loss.steps is not Steps.SAMPLED:
                continue
            if fraction == 0:
                raise InputError(
                    f"--losses {loss.name} trains only on the student's own responses, but --on_policy_fraction is 0, "
                    f"so no step has any. Give --on_policy_fraction, above 0 and up to 1, or leave {loss.name} out"
                )
            if self.on_policy_temperature != 1:
                raise InputError(
                    f"--on_policy_temperature is {self.on_policy_temperature}, but --losses {loss.name} needs "
                    f"responses from the student's distribution itself; set it to 1, or leave {loss.name} out"
                )
        if fraction > 0 and all(loss.steps is Steps.DATA for loss in losses):
            raise InputError(
                f"--losses {self.losses} trains only on the data's responses, but --on_policy_fraction is "
                f"{fraction}: those steps would train nothing. Add kd, or set the fraction to 0"
            )
        if fraction < 1 and all(loss.steps is Steps.SAMPLED for loss in losses):
            raise InputError(
                f"--losses {self.losses} trains only on the student's responses, but --on_policy_fraction is "
                f"{fraction}: the other steps would train nothing. Add sft, or set the fraction to 1"
            )

    def on_policy(self, seed: int) -> OnPolicySettings:
        """Settings of the on-policy steps.

        Raises:
            InputError: A number is out of range.
        """
        return OnPolicySettings(
            self.on_policy_fraction, self.on_policy_temperature, self.on_policy_max_new_tokens, seed
        )

    @property
    def chosen_losses(self) -> list[str]:
        """Names of the chosen losses."""
        return [name.strip() for name in self.losses.split(",") if name.strip()]

    @property
    def objective(self) -> ObjectiveConfig:
        """The objective's configuration from the flags.

        Raises:
            InputError: A value is invalid, or values do not fit together.
        """
        try:
            return ObjectiveConfig.of_flags(self.chosen_losses, vars(self))
        except SettingError as error:
            raise InputError(error.say(flag_name)) from error
