"""The configuration of the objective, one nested object, and the command-line flags made from it.

In Python::

    ObjectiveConfig(kd=KDConfig(), tpa=TPAConfig(d=8), ribbon=RibbonConfig(backend="sdpa"))

On the command line every setting is a flag, named ``SECTION_FIELD`` (``--tpa_d``) unless the setting names another
(``--packing``).
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypeVar, get_type_hints

import torch

from align_ti.attention.ribbon.backends import BACKENDS, resolve_backend
from align_ti.losses.divergences import DivergenceConfig
from align_ti.losses.loss import AttentionMap, Candidates, Loss, LossConfig
from align_ti.losses.registry import LOSSES
from align_ti.settings import (
    AUTO_SWITCH,
    SWITCH,
    Rule,
    Section,
    SettingError,
    auto_or_bool,
    is_whole,
    one_of,
    setting,
)
from llava.errors import InputError

PAPER = ("sft", "kd", "iva", "tpa")
"""The losses of Eq. 8."""

N = TypeVar("N", AttentionMap, Candidates)

RIBBONS = ("prefix", "algorithm1")
RIBBON_BACKENDS = ("auto", *sorted(BACKENDS))


@dataclass(frozen=True, kw_only=True)
class RibbonConfig(Section):
    """How candidates run through the models. All choices give the same results.

    Attributes:
        kind: ``prefix`` or ``algorithm1``.
        backend: Attention backend of the candidate pass.
        merge_draws: Whether equal draws share a row.
    """

    section: ClassVar[str] = "ribbon"
    kind: str = setting(
        "prefix",
        f"one of {', '.join(RIBBONS)}: on the main pass's keys, or the paper's single pass",
        one_of(RIBBONS),
        flag="ribbon",
    )
    backend: str = setting(
        "auto", f"attention of the candidate pass, one of {', '.join(RIBBON_BACKENDS)}", one_of(RIBBON_BACKENDS)
    )
    merge_draws: bool = setting(
        True, "equal draws share one row; draws equal to the label need none", SWITCH, flag="merge_draws"
    )


@dataclass(frozen=True, kw_only=True, init=False)
class ObjectiveConfig(Section):
    """Configuration of the whole objective (Eq. 8).

    Attributes:
        losses: Settings of each loss that is used, by name.
        divergence: Divergence between teacher and student.
        ribbon: How candidates run.
        compile_losses: Fuse the operations on logits with ``torch.compile``.
        packing: Concatenate the samples of a micro-batch without padding; results are the same. ``auto``: where
            variable-length attention runs, see ``packs``.
        end_of_turn_ids: Tokens that end a turn; a training run takes them from its tokenizer.
        seed: Random seed of the draws; a training run uses its own.
    """

    losses: Mapping[str, LossConfig]
    divergence: DivergenceConfig
    ribbon: RibbonConfig
    compile_losses: bool = setting(
        False,
        "fuse softmax, divergence and their gradient with torch.compile; needs a compiler",
        SWITCH,
        flag="compile_losses",
    )
    packing: bool | str = setting(
        "auto",
        "lay the samples of a batch one after the other instead of padding them; auto: where FlashAttention runs",
        AUTO_SWITCH,
        flag="packing",
        flag_type=auto_or_bool,
    )
    end_of_turn_ids: Collection[int] = frozenset()
    seed: int = 0

    def __init__(
        self,
        *,
        divergence: DivergenceConfig | None = None,
        ribbon: RibbonConfig | None = None,
        compile_losses: bool = False,
        packing: bool | str = "auto",
        end_of_turn_ids: Collection[int] = frozenset(),
        seed: int = 0,
        **losses: LossConfig | None,
    ) -> None:
        """Choose the losses by name.

        Args:
            losses: The losses to use, ``kd=KDConfig(weight=2.0)``. Losses that are not named, or are None, are not
                used. If none is named, the paper's four are used with their defaults.

        Raises:
            SettingError: A loss is unknown, settings have the wrong type, or values do not fit together.
        """
        given = {name: loss for name, loss in losses.items() if loss is not None}
        values = {
            "losses": given or {name: LOSSES[name].Config() for name in PAPER},
            "divergence": DivergenceConfig() if divergence is None else divergence,
            "ribbon": RibbonConfig() if ribbon is None else ribbon,
            "compile_losses": compile_losses,
            "packing": packing,
            "end_of_turn_ids": end_of_turn_ids,
            "seed": seed,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        self.__post_init__()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("seed", Rule(lambda value: is_whole(value, 0) and value < 2**64, "a whole number, 0 to 2^64 - 1"))
        self.check(
            "end_of_turn_ids",
            Rule(
                lambda value: isinstance(value, Collection) and all(is_whole(token, 0) for token in value),
                "a collection of token ids",
            ),
        )
        self.check("divergence", _section_of(DivergenceConfig))
        self.check("ribbon", _section_of(RibbonConfig))
        self._check_losses()
        if self.packing is True and self.ribbon.kind == "algorithm1":
            raise SettingError(
                lambda naming: (
                    f"{naming('packing')} works with {naming('ribbon.kind')} prefix; Algorithm 1's dense "
                    "mask is over padded samples"
                )
            )
        _ = self.attention, self.candidates  # raises where losses need different ones

    def _check_losses(self) -> None:
        for name, found in self.losses.items():
            if name not in LOSSES:
                raise InputError(f"unknown loss {name!r}; expected one of {', '.join(LOSSES)}")
            wanted = LOSSES[name].Config
            if type(found) is not wanted:
                raise InputError(
                    f"{name} is {found!r}; expected its settings, for example {wanted.__name__}(weight=1.0)"
                )
        if not any(loss.weight for loss in self.losses.values()):
            raise SettingError(
                lambda naming: (
                    f"all of {', '.join(naming(loss.path('weight')) for loss in self.losses.values())} are "
                    "0: nothing is trained"
                )
            )

    def packs(self, dtype: torch.dtype) -> bool:
        """Whether samples are concatenated when attention runs in ``dtype``: ``packing``, or for ``auto`` whether the
        ribbon's backend is FlashAttention."""
        if isinstance(self.packing, bool):
            return self.packing
        return self.ribbon.kind == "prefix" and resolve_backend(self.ribbon.backend, dtype) == "flash"

    def build(self) -> dict[str, Loss]:
        """New objects of the losses that are used, by name."""
        return {name: LOSSES[name](config) for name, config in self.losses.items()}

    @property
    def attention(self) -> AttentionMap | None:
        """The attention map that the losses need, if any."""
        return _the_one("attention map", {name: loss.attention for name, loss in self.build().items()})

    @property
    def candidates(self) -> Candidates | None:
        """The candidates that the losses need, if any."""
        return _the_one("candidates", {name: loss.candidates for name, loss in self.build().items()})

    def replace(self, **changes: Any) -> "ObjectiveConfig":
        """A copy with some arguments changed; ``kd=None`` removes a loss."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "losses"}
        return ObjectiveConfig(**{**own, **self.losses, **changes})

    def at_layer(self, layer: int) -> "ObjectiveConfig":
        """A copy that takes its attention map from a given layer."""
        needing = [name for name, loss in self.build().items() if loss.attention is not None]
        return self.replace(**{name: dataclasses.replace(self.losses[name], layer=layer) for name in needing})  # type: ignore[call-arg]

    @classmethod
    def of_flags(cls, losses: Iterable[str], flags: Mapping[str, Any]) -> "ObjectiveConfig":
        """Build the configuration from command-line flags.

        Args:
            losses: Names of the losses to use, from ``LOSSES``.
            flags: Values by flag, without dashes. Missing flags have their defaults; unknown flags are ignored.

        Raises:
            SettingError: A value is invalid, even of a loss that is not used.
        """
        values: dict[str, dict[str, Any]] = {}
        for name, flag in FLAGS.items():
            if name in flags:
                values.setdefault(flag.section, {})[flag.field] = flags[name]
        sections: dict[str, Any] = {name: kind(**values.get(name, {})) for name, kind in SECTIONS.items() if name}
        chosen = {name: sections[name] for name in losses}
        return cls(divergence=sections["divergence"], ribbon=sections["ribbon"], **values.get("", {}), **chosen)

    def flags(self) -> dict[str, Any]:
        """The inverse of ``of_flags``: values by flag, of the sections that are used, and ``losses``."""
        sections: dict[str, Section] = {"": self, "divergence": self.divergence, "ribbon": self.ribbon, **self.losses}
        given = {name: getattr(sections[f.section], f.field) for name, f in FLAGS.items() if f.section in sections}
        return {"losses": ",".join(self.losses), **given}

    def record(self) -> dict[str, dict[str, Any]]:
        """Title, weight and settings of each loss, for the record of a run."""
        out = {}
        for name, loss in self.build().items():
            settings = dataclasses.asdict(loss.config)
            out[name] = {"title": loss.title, "weight": settings.pop("weight"), "settings": settings}
        return out


def _the_one(what: str, needs: Mapping[str, N | None]) -> N | None:
    """The one thing that several losses need (None if none does); a step computes it once, so they must agree.

    Raises:
        InputError: They need different ones.
    """
    asked = {name: need for name, need in needs.items() if need is not None}
    if len(set(asked.values())) > 1:
        found = "; ".join(f"{name}: {need}" for name, need in asked.items())
        raise InputError(f"{' and '.join(asked)} share one {what}, but their settings ask for different ones: {found}")
    return next(iter(asked.values()), None)


def _section_of(kind: type) -> Rule:
    return Rule(lambda value: isinstance(value, kind), f"a {kind.__name__}")


SECTIONS: Mapping[str, type[Section]] = MappingProxyType(
    {
        **{name: loss.Config for name, loss in LOSSES.items()},
        "divergence": DivergenceConfig,
        "ribbon": RibbonConfig,
        "": ObjectiveConfig,
    }
)
"""All settings of an objective, section by section."""


class Flag(NamedTuple):
    """A setting on the command line."""

    section: str
    field: str
    type: Any
    default: Any
    help: str


def _flags() -> dict[str, Flag]:
    out = {}
    for section, kind in SECTIONS.items():
        types = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            about = field.metadata
            if "help" in about:
                name = about["flag"] or f"{section}_{field.name}"
                of = about["flag_type"] or types[field.name]
                out[name] = Flag(section, field.name, of, field.default, about["help"])
    return out


FLAGS: Mapping[str, Flag] = MappingProxyType(_flags())
"""Every setting by its flag, without dashes."""

_FLAG_OF = {SECTIONS[flag.section].path(flag.field): name for name, flag in FLAGS.items()}


def flag_name(path: str) -> str:
    """The flag of a setting's path, as it is written: ``tpa.d`` is ``--tpa_d``."""
    return f"--{_FLAG_OF[path]}" if path in _FLAG_OF else path
