"""Divergences between a teacher's and a student's next-token distributions, one number per row.

Every function takes logits ``[rows, V]`` of the student and of the teacher over the same ``V`` tokens
and returns ``[rows]`` in nats, in float32 (float64 stays float64). To add a divergence, write one such
function and give it a name in ``get_divergence``.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from align_ti.numerics import exact_dtype
from align_ti.settings import POSITIVE, Naming, Rule, Section, SettingError, is_number, setting
from llava.errors import InputError

Divergence = Callable[[Tensor, Tensor], Tensor]


def forward_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """``KL(P_T || P_S)``, the paper's divergence (Eq. 2, 4 and 7). Logits ``[rows, V]`` -> ``[rows]``."""
    log_s, log_t = _log_probabilities(student, teacher)
    return (log_t.exp() * (log_t - log_s)).sum(-1)


def reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """``KL(P_S || P_T)``. Logits ``[rows, V]`` -> ``[rows]``."""
    log_s, log_t = _log_probabilities(student, teacher)
    return (log_s.exp() * (log_s - log_t)).sum(-1)


def jsd(student: Tensor, teacher: Tensor, beta: float = 0.5) -> Tensor:
    """Generalised Jensen-Shannon divergence ``beta KL(P_T || M) + (1 - beta) KL(P_S || M)``.

    ``M = beta P_T + (1 - beta) P_S`` with ``0 < beta < 1`` (GKD, arXiv 2306.13649). Never above
    ``-beta ln(beta) - (1 - beta) ln(1 - beta)``, hence ``ln 2`` at one half.
    """
    log_s, log_t = _log_probabilities(student, teacher)
    log_m = torch.logaddexp(log_t + math.log(beta), log_s + math.log1p(-beta))
    teacher_part = (log_t.exp() * (log_t - log_m)).sum(-1)
    student_part = (log_s.exp() * (log_s - log_m)).sum(-1)
    return beta * teacher_part + (1 - beta) * student_part


def skew_kl(student: Tensor, teacher: Tensor, alpha: float = 0.1) -> Tensor:
    """Skew divergence ``KL(P_T || alpha P_T + (1 - alpha) P_S)`` with ``0 < alpha < 1``.

    (DistiLLM, arXiv 2402.03898.) It tends to the forward KL as ``alpha`` tends to 0 and never exceeds
    ``-ln(alpha)``.
    """
    log_s, log_t = _log_probabilities(student, teacher)
    log_m = torch.logaddexp(log_t + math.log(alpha), log_s + math.log1p(-alpha))
    return (log_t.exp() * (log_t - log_m)).sum(-1)


PLAIN: dict[str, Divergence] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": jsd,
    "skew_kl": skew_kl,
}
PARAMETERS = {"jsd": "beta", "skew_kl": "alpha"}


@cache
def get_divergence(name: str) -> Divergence:
    """Find a divergence by name; ``jsd:0.3`` and ``skew_kl:0.2`` also set its ``beta`` or ``alpha``.

    Raises:
        InputError: Unknown name, a parameter where there is none, or one outside (0, 1).
    """
    base, _, number = name.partition(":")
    if base not in PLAIN:
        raise InputError(f"unknown divergence {name!r}; there are {', '.join(PLAIN)} (also as jsd:0.3)")
    if not number:
        return PLAIN[base]
    if base not in PARAMETERS:
        raise InputError(f"divergence {base!r} takes no parameter, got {name!r}; write {base!r}")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise InputError(f"divergence {name!r}: {PARAMETERS[base]} must be a number strictly between 0 and 1")
    return partial(PLAIN[base], **{PARAMETERS[base]: value})


_SHARE = Rule(
    lambda value: value is None or (is_number(value, above=0) and value < 1),
    "a number strictly between 0 and 1 (the limits are forward_kl and, for jsd, reverse_kl)",
)


@dataclass(frozen=True, kw_only=True)
class DivergenceConfig(Section):
    """The divergence between teacher and student in ``kd``, ``iva`` and ``tpa``.

    Attributes:
        name: See ``align_ti.losses.divergences``; ``jsd:0.3`` sets the parameter as well.
        jsd_beta, skew_alpha: The parameter of ``jsd`` or ``skew_kl``.
        temperature: Of both models' distributions; the loss is not multiplied by its square.

    Raises:
        SettingError: An unknown divergence, a parameter of another one, or a number out of range.
    """

    section: ClassVar[str] = "divergence"
    name: str = setting(
        "forward_kl",
        f"one of {', '.join(PLAIN)}",
        Rule(lambda value: isinstance(value, str), "the name of a divergence"),
        flag="divergence",
    )
    jsd_beta: float | None = setting(
        None,
        "teacher's share of the mixture in --divergence jsd, in (0, 1); 0.5 if absent",
        _SHARE,
        flag="jsd_beta",
    )
    skew_alpha: float | None = setting(
        None, "the same in --divergence skew_kl, in (0, 1); 0.1 if absent", _SHARE, flag="skew_alpha"
    )
    temperature: float = setting(1.0, "temperature of both models' distributions", POSITIVE, flag="kd_temperature")

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, base in self._parameters.items():
            if getattr(self, field) is not None and self.name != base:
                raise SettingError(partial(self._of_another, self.path(field), getattr(self, field), base))
        try:
            get_divergence(self.full_name)
        except InputError as error:
            reason = str(error)
            raise SettingError(lambda naming: f"{naming(self.path('name'))}: {reason}") from error

    _parameters: ClassVar[Mapping[str, str]] = MappingProxyType({"jsd_beta": "jsd", "skew_alpha": "skew_kl"})

    def _of_another(self, path: str, value: float, base: str, naming: Naming) -> str:
        parameter, divergence = naming(path), naming(self.path("name"))
        return (
            f"{parameter} {value} is the parameter of {divergence} {base}, but {divergence} is {self.name!r}; write "
            f"{divergence} {base}, or leave {parameter} out"
        )

    @property
    def full_name(self) -> str:
        """The name with its parameter, as ``get_divergence`` reads it."""
        given = [getattr(self, field) for field in self._parameters if getattr(self, field) is not None]
        return f"{self.name}:{given[0]!r}" if given else self.name


def _log_probabilities(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    dtype = exact_dtype(student, teacher)
    return log_softmax(student, -1, dtype=dtype), log_softmax(teacher, -1, dtype=dtype)
