"""Command-line arguments of the distillation stage."""

import re
from dataclasses import dataclass, field
from typing import Any

from align_ti.config import CHOICES, LOSSES, check_settings
from align_ti.losses.divergences import PLAIN
from align_ti.training.on_policy import OnPolicySettings
from llava.errors import InputError

FLAGS = {
    "divergence": "divergence",
    "temperature": "kd_temperature",
    "iva_weights": "iva_weights",
    "rel_similarity": "rel_similarity",
    "d": "tpa_d",
    "sampling": "tpa_sampling",
    "top_p": "tpa_top_p",
    "draws_from": "tpa_draws_from",
    "ribbon": "ribbon",
    "backend": "ribbon_backend",
    "merge_draws": "merge_draws",
    "compile_losses": "compile_losses",
    "packing": "packing",
}
"""Fields of ``ObjectiveSettings`` and their flags; ``weights`` has one a loss."""


def choices(field_name: str) -> str:
    """The values of a field of ``ObjectiveSettings``, as help shows them."""
    return ", ".join(CHOICES[field_name])


@dataclass
class DistillArguments:
    """Who teaches, and with which losses (Eq. 8)."""

    teacher_path: str = field(metadata={"help": "a finished LLaVA-style checkpoint: folder or hub name"})
    teacher_zero3: bool = field(
        default=False, metadata={"help": "split the teacher over the ranks (DeepSpeed ZeRO-3) instead of copying it"}
    )
    allow_teacher_mismatch: bool = field(
        default=False,
        metadata={"help": "train, with a warning, although the teacher was tuned on other images or another prompt"},
    )
    losses: str = field(default="sft,kd,iva,tpa", metadata={"help": f"comma-separated subset of {', '.join(LOSSES)}"})
    sft_weight: float = field(default=1.0, metadata={"help": "factor of the supervised loss"})
    kd_weight: float = field(default=1.0, metadata={"help": "factor of the next-token KD loss (Eq. 2)"})
    iva_weight: float = field(default=1.0, metadata={"help": "factor of the IVA loss (Eq. 4)"})
    tpa_weight: float = field(default=1.0, metadata={"help": "factor of the TPA loss (Eq. 7)"})
    rel_weight: float = field(default=1.0, metadata={"help": "factor of the relational loss (LLaVA-KD)"})
    rel_similarity: str = field(
        default="cosine",
        metadata={"help": f"of two visual tokens' logits, one of {choices('rel_similarity')} (LLaVA-KD's)"},
    )
    pg_weight: float = field(
        default=1.0, metadata={"help": "factor of MiniLLM's policy gradient, on on-policy steps alone"}
    )
    divergence: str = field(default="forward_kl", metadata={"help": f"one of {', '.join(PLAIN)}"})
    jsd_beta: float | None = field(
        default=None, metadata={"help": "teacher's share of the mixture in --divergence jsd, in (0, 1); 0.5 if absent"}
    )
    skew_alpha: float | None = field(
        default=None,
        metadata={"help": "the same in --divergence skew_kl, in (0, 1); 0.1 if absent"},
    )
    kd_temperature: float = field(default=1.0, metadata={"help": "temperature of both models' distributions"})
    iva_layer: str = field(
        default="auto",
        metadata={
            "help": "layer of the attention maps, of the model that --iva_weights names: a number from 0, a depth in "
            "percent, or auto"
        },
    )
    iva_weights: str = field(
        default="teacher",
        metadata={
            "help": f"whose attention, one of {choices('iva_weights')}: the paper's, Table 8's, Table 6's, and the "
            "teacher's, spread evenly over the picture"
        },
    )
    irs_inputs: int = field(default=256, metadata={"help": "training samples from which auto estimates the IRS"})
    irs_pairs: int = field(default=1000, metadata={"help": "pairs of them (the paper: 1,000)"})
    on_policy_fraction: float = field(
        default=0.0, metadata={"help": "probability that a step trains on the student's own responses (GKD's lambda)"}
    )
    on_policy_temperature: float = field(default=1.0, metadata={"help": "temperature of the student's responses"})
    on_policy_max_new_tokens: int = field(default=128, metadata={"help": "longest response of the student, in tokens"})
    tpa_d: int = field(default=4, metadata={"help": "candidate tokens drawn at each step (the paper: 4)"})
    tpa_sampling: str = field(default="nucleus", metadata={"help": f"how they are drawn, one of {choices('sampling')}"})
    tpa_top_p: float = field(default=0.95, metadata={"help": "probability mass that nucleus sampling draws from"})
    tpa_draws_from: str = field(default="student", metadata={"help": f"whose draws, one of {choices('draws_from')}"})
    ribbon: str = field(
        default="prefix",
        metadata={"help": f"one of {choices('ribbon')}: on the main pass's keys, or the paper's single pass"},
    )
    ribbon_backend: str = field(
        default="auto", metadata={"help": f"attention of the candidate pass, one of {choices('backend')}"}
    )
    merge_draws: bool = field(
        default=True, metadata={"help": "equal draws share one row; draws equal to the label need none"}
    )
    compile_losses: bool = field(
        default=False,
        metadata={"help": "fuse softmax, divergence and their gradient with torch.compile; needs a compiler"},
    )
    packing: bool = field(
        default=False, metadata={"help": "lay the samples of a batch one after the other instead of padding them"}
    )

    def __post_init__(self) -> None:
        chosen = self.chosen_losses
        unknown = sorted(set(chosen) - set(LOSSES))
        if unknown or not chosen or len(set(chosen)) != len(chosen):
            raise InputError(f"--losses {self.losses!r}: expected a comma-separated subset of {', '.join(LOSSES)}")
        names = {name: f"--{flag}" for name, flag in FLAGS.items()}
        names |= {f"weights.{loss}": f"--{loss}_weight" for loss in chosen}
        check_settings(self.settings, names)
        if not re.fullmatch(r"auto|\d+|(\d{1,2}|100)%", self.iva_layer, re.ASCII):
            raise InputError(
                f"--iva_layer {self.iva_layer!r}: expected a layer number from 0, a depth from 0% to 100%, or auto"
            )
        self._check_on_policy()
        if self.irs_inputs < 2 or self.irs_pairs < 1:
            raise InputError("--irs_inputs must be at least 2 and --irs_pairs at least 1")

    def _check_on_policy(self) -> None:
        fraction, chosen = self.on_policy(seed=0).fraction, set(self.chosen_losses)
        if "pg" in chosen and fraction == 0:
            raise InputError(
                "--losses pg is a policy gradient on the student's own responses, and --on_policy_fraction is 0: no "
                "step has any. Give --on_policy_fraction, above 0 and up to 1, or leave pg out"
            )
        if "pg" in chosen and self.on_policy_temperature != 1:
            raise InputError(
                f"--on_policy_temperature is {self.on_policy_temperature}, but --losses pg needs responses from the "
                "student's distribution itself; set it to 1, or leave pg out"
            )
        if fraction > 0 and chosen == {"sft"}:
            raise InputError(
                f"--losses sft trains on the data's responses alone, and --on_policy_fraction is {fraction}: those "
                "steps would train nothing. Add kd, or set the fraction to 0"
            )
        if fraction < 1 and chosen == {"pg"}:
            raise InputError(
                f"--losses pg trains on the student's responses alone, and --on_policy_fraction is {fraction}: the "
                "other steps would train nothing. Add sft, or set the fraction to 1"
            )

    def on_policy(self, seed: int) -> OnPolicySettings:
        """How often and how the student answers the samples itself.

        Raises:
            InputError: a number out of range.
        """
        return OnPolicySettings(
            self.on_policy_fraction, self.on_policy_temperature, self.on_policy_max_new_tokens, seed
        )

    @property
    def chosen_losses(self) -> list[str]:
        """The losses asked for."""
        return [name.strip() for name in self.losses.split(",") if name.strip()]

    @property
    def divergence_name(self) -> str:
        """``--divergence`` with its parameter, as ``get_divergence`` reads it.

        Raises:
            InputError: a parameter of another divergence, one given twice, or one outside (0, 1).
        """
        name = self.divergence
        for flag, base, value in (("jsd_beta", "jsd", self.jsd_beta), ("skew_alpha", "skew_kl", self.skew_alpha)):
            if value is None:
                continue
            if self.divergence != base:
                raise InputError(
                    f"--{flag} {value} is the parameter of --divergence {base}, but --divergence is "
                    f"{self.divergence!r}; write --divergence {base}, or leave --{flag} out"
                )
            if not 0 < value < 1:
                raise InputError(
                    f"--{flag} is {value}; expected a number strictly between 0 and 1 (the limits are forward_kl and, "
                    "for jsd, reverse_kl)"
                )
            name = f"{base}:{value!r}"
        return name

    @property
    def settings(self) -> dict[str, Any]:
        """Fields of ``ObjectiveSettings`` that flags decide.

        Raises:
            InputError: see ``divergence_name``.
        """
        flags = {name: getattr(self, flag) for name, flag in FLAGS.items()}
        return {**flags, "weights": self.weights, "divergence": self.divergence_name}

    @property
    def weights(self) -> dict[str, float]:
        """Factor of every loss asked for."""
        return {name: getattr(self, f"{name}_weight") for name in self.chosen_losses}
