"""What the objective is made of, and which values its parts may have: for Python and for the command line."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, NamedTuple

from align_ti.attention.ribbon.backends import BACKENDS
from align_ti.candidates.sampling import METHODS
from align_ti.losses.divergences import get_divergence
from align_ti.losses.iva import IVA_WEIGHTS
from align_ti.losses.relational import SIMILARITIES
from llava.errors import InputError

LOSSES = ("sft", "kd", "iva", "tpa", "rel", "pg")
"""Terms of Eq. 8, in the paper's order of introduction, then those of the methods it compares with."""

CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "iva_weights": tuple(IVA_WEIGHTS),
        "rel_similarity": SIMILARITIES,
        "sampling": METHODS,
        "draws_from": ("student", "teacher"),
        "ribbon": ("prefix", "algorithm1"),
        "backend": ("auto", *sorted(BACKENDS)),
    }
)
"""Fields that name one of several things."""


class Rule(NamedTuple):
    """``fits`` says whether a field may have a value; ``expected`` describes those that do."""

    fits: Callable[[Any], bool]
    expected: str


def _whole(value: Any, lowest: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= lowest


def _number(value: Any, above: float = -math.inf) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and above < float(value) < math.inf


ONE_OF_TWO = Rule(lambda value: isinstance(value, bool), "True or False")

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "iva_layer": Rule(lambda value: value is None or _whole(value, 0), "a layer number from 0, or None"),
        "temperature": Rule(lambda value: _number(value, above=0), "a positive number"),
        "d": Rule(lambda value: _whole(value, 1), "a whole number of candidates, at least 1 a step"),
        "top_p": Rule(lambda value: _number(value, above=0) and value <= 1, "a probability in (0, 1]"),
        "merge_draws": ONE_OF_TWO,
        "compile_losses": ONE_OF_TWO,
        "packing": ONE_OF_TWO,
        "end_of_turn_ids": Rule(
            lambda value: isinstance(value, Collection) and all(_whole(token, 0) for token in value),
            "a collection of token ids",
        ),
        "seed": Rule(lambda value: _whole(value, 0) and value < 2**64, "a whole number, 0 to 2^64 - 1"),
    }
)
"""All other fields but ``weights`` and ``divergence``."""


@dataclass(frozen=True)
class ObjectiveSettings:
    """What Eq. 8 is made of.

    Attributes:
        weights: factor of each term that takes part, of ``LOSSES``.
        iva_weights: where IVA's weights come from: ``teacher`` (the paper), ``student`` (its Table 8), ``uniform`` (its
            Table 6) or ``teacher_mean`` (between the first and the last).
        iva_layer: the layer ``l*`` of the model whose attention gives the weights; ``uniform`` needs none.
        rel_similarity: of ``rel``, see ``align_ti.losses.relational``.
        divergence, temperature: of ``kd``, ``iva`` and ``tpa``.
        d, sampling, top_p, draws_from: TPA's candidates, see ``align_ti.candidates.sampling``.
        ribbon: ``prefix`` or ``algorithm1``; both give the same numbers.
        backend, merge_draws: of the ribbon.
        compile_losses: fuse divergences of logits with ``torch.compile`` (``kd``, ``iva``, ``tpa``, ``pg``).
        packing: lay the samples of a micro-batch in one row, without padding; the numbers stay the same.
        end_of_turn_ids: tokens after which nothing is generated.
        seed: of the draws.

    Raises:
        InputError: see ``check_settings``; or IVA without a layer.
    """

    weights: Mapping[str, float]
    iva_layer: int | None = None
    divergence: str = "forward_kl"
    temperature: float = 1.0
    d: int = 4
    sampling: str = "nucleus"
    top_p: float = 0.95
    draws_from: str = "student"
    ribbon: str = "prefix"
    backend: str = "auto"
    merge_draws: bool = True
    compile_losses: bool = False
    packing: bool = False
    end_of_turn_ids: Collection[int] = field(default_factory=frozenset)
    seed: int = 0
    iva_weights: str = "teacher"
    rel_similarity: str = "cosine"

    def __post_init__(self) -> None:
        check_settings(vars(self))
        if self.maps_of is not None and self.iva_layer is None:
            raise InputError("iva is among the losses but no layer was chosen for its weights")

    @property
    def maps_of(self) -> str | None:
        """The model whose attention map is needed, ``teacher`` or ``student``, if any."""
        return IVA_WEIGHTS[self.iva_weights] if "iva" in self.weights else None


def check_settings(values: Mapping[str, Any], names: Mapping[str, str] = MappingProxyType({})) -> None:
    """Refuse values that fields of ``ObjectiveSettings`` cannot have, and fields that do not go together.

    Args:
        values: by field; those that are not there are not checked.
        names: what the user calls a field, where that is something else; ``weights.kd`` is the factor of ``kd``.

    Raises:
        InputError: an unknown loss or choice, a number or a type out of range, or packing under Algorithm 1.
    """

    def name(of: str) -> str:
        return names.get(of, of)

    for key, value in values.items():
        if key in CHOICES and value not in CHOICES[key]:
            raise InputError(f"{name(key)} {value!r}: expected one of {', '.join(CHOICES[key])}")
        if key in RULES and not RULES[key].fits(value):
            raise InputError(f"{name(key)} is {value!r}; expected {RULES[key].expected}")
    if "weights" in values:
        _check_weights(values["weights"], name)
    if "divergence" in values:
        _check_divergence(values["divergence"], name("divergence"))
    if values.get("packing") and values.get("ribbon") == "algorithm1":
        raise InputError(
            f"{name('packing')} works with {name('ribbon')} prefix; Algorithm 1's dense mask is over padded samples"
        )


def _check_weights(weights: Any, name: Callable[[str], str]) -> None:
    known = f"a factor for each of some of {', '.join(LOSSES)}"
    if not isinstance(weights, Mapping) or not weights or set(weights) - set(LOSSES):
        raise InputError(f"{name('weights')} is {weights!r}; expected {known}")
    for loss, factor in weights.items():
        if not _number(factor) or factor < 0:
            raise InputError(f"{name(f'weights.{loss}')} is {factor!r}; expected a number, at least 0")
    if not any(weights.values()):
        raise InputError(f"all of {', '.join(name(f'weights.{loss}') for loss in weights)} are 0: nothing is trained")


def _check_divergence(value: Any, name: str) -> None:
    if not isinstance(value, str):
        raise InputError(f"{name} is {value!r}; expected the name of a divergence")
    try:
        get_divergence(value)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
