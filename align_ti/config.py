"""The objective's configuration: which losses, with which settings; one nested object, and its flat flags.

In Python::

    ObjectiveConfig(kd=KDConfig(), tpa=TPAConfig(d=8), ribbon=RibbonConfig(backend="sdpa"))

On the command line every setting has a flag, ``SECTION_FIELD`` (``--tpa_d``) unless it names another (``--packing``).
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, get_type_hints

from align_ti.attention.ribbon.backends import BACKENDS
from align_ti.losses.divergences import PLAIN, get_divergence
from align_ti.losses.loss import AttentionMap, Candidates, Loss, LossConfig
from align_ti.losses.registry import LOSSES
from align_ti.settings import (
    POSITIVE,
    SWITCH,
    Naming,
    Rule,
    Section,
    SettingError,
    is_number,
    is_whole,
    one_of,
    setting,
)
from llava.errors import InputError

PAPER = ("sft", "kd", "iva", "tpa")
"""The losses of Eq. 8."""

RIBBONS = ("prefix", "algorithm1")
RIBBON_BACKENDS = ("auto", *sorted(BACKENDS))

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


@dataclass(frozen=True, kw_only=True)
class RibbonConfig(Section):
    """How candidates run through the models; every choice gives the same numbers.

    Attributes:
        kind: ``prefix`` or ``algorithm1``.
        backend: Of the attention of the candidate pass.
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
    """What Eq. 8 is made of.

    Attributes:
        losses: Settings of each loss that takes part, by name.
        divergence: Between teacher and student.
        ribbon: How candidates run.
        compile_losses: Fuse what is done to logits with ``torch.compile``.
        packing: Lay the samples of a micro-batch in one row, without padding; the numbers stay the same.
        end_of_turn_ids: Tokens after which nothing is generated; a training takes them from its tokenizer.
        seed: Random seed of the draws; a training takes its own.
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
    packing: bool = setting(
        False, "lay the samples of a batch one after the other instead of padding them", SWITCH, flag="packing"
    )
    end_of_turn_ids: Collection[int] = frozenset()
    seed: int = 0

    def __init__(
        self,
        *,
        divergence: DivergenceConfig | None = None,
        ribbon: RibbonConfig | None = None,
        compile_losses: bool = False,
        packing: bool = False,
        end_of_turn_ids: Collection[int] = frozenset(),
        seed: int = 0,
        **losses: LossConfig | None,
    ) -> None:
        """Choose the losses by name.

        Args:
            losses: ``kd=KDConfig(weight=2.0)`` and so on; those that are not named, or None, take no part. With none
                named, the paper's four take part with their defaults.

        Raises:
            SettingError: An unknown loss, settings of the wrong kind, or values that do not go together.
        """
        given = {name: loss for name, loss in losses.items() if loss is not None}
        values = {
            "losses": MappingProxyType(given or {name: LOSSES[name].Config() for name in PAPER}),
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
        if self.packing and self.ribbon.kind == "algorithm1":
            raise SettingError(
                lambda naming: (
                    f"{naming('packing')} works with {naming('ribbon.kind')} prefix; Algorithm 1's dense "
                    "mask is over padded samples"
                )
            )
        for need in ("attention", "candidates"):
            self._shared(need)

    def _check_losses(self) -> None:
        for name, found in self.losses.items():
            if name not in LOSSES:
                raise InputError(f"{name!r} is no loss; expected some of {', '.join(LOSSES)}")
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

    def build(self) -> dict[str, Loss]:
        """New objects of the losses that take part, by name."""
        return {name: LOSSES[name](config) for name, config in self.losses.items()}

    @property
    def attention(self) -> AttentionMap | None:
        """The attention map that some loss needs."""
        return self._shared("attention")

    @property
    def candidates(self) -> Candidates | None:
        """The candidates that some loss needs."""
        return self._shared("candidates")

    def _shared(self, need: str) -> Any:
        """What losses need, of which a step makes one only."""
        asked = {name: getattr(loss, need) for name, loss in self.build().items()}
        kinds = {name: value for name, value in asked.items() if value is not None}
        if len(set(kinds.values())) > 1:
            found = "; ".join(f"{name}: {value}" for name, value in kinds.items())
            raise InputError(f"{' and '.join(kinds)} need the same {need}, but their settings differ: {found}")
        return next(iter(kinds.values()), None)

    def replace(self, **changes: Any) -> "ObjectiveConfig":
        """The same with other arguments; ``kd=None`` leaves a loss out."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "losses"}
        return ObjectiveConfig(**{**own, **self.losses, **changes})

    def at_layer(self, layer: int) -> "ObjectiveConfig":
        """The same with attention maps from one layer."""
        needing = [name for name, loss in self.build().items() if loss.attention is not None]
        return self.replace(**{name: dataclasses.replace(self.losses[name], layer=layer) for name in needing})  # type: ignore[call-arg]

    @classmethod
    def of_flags(cls, losses: Iterable[str], flags: Mapping[str, Any]) -> "ObjectiveConfig":
        """The configuration that flags describe.

        Args:
            losses: Names of those that take part, of ``LOSSES``.
            flags: Values by flag, without dashes; those that are absent have their defaults, others are passed over.

        Raises:
            SettingError: See the sections; settings of losses that take no part are checked too.
        """
        values: dict[str, dict[str, Any]] = {}
        for name, flag in FLAGS.items():
            if name in flags:
                values.setdefault(flag.section, {})[flag.field] = flags[name]
        sections: dict[str, Any] = {name: kind(**values.get(name, {})) for name, kind in SECTIONS.items() if name}
        chosen = {name: sections[name] for name in losses}
        return cls(divergence=sections["divergence"], ribbon=sections["ribbon"], **values.get("", {}), **chosen)

    def flags(self) -> dict[str, Any]:
        """The other way: the values by flag, of sections that take part, and ``losses``."""
        sections: dict[str, Section] = {"": self, "divergence": self.divergence, "ribbon": self.ribbon, **self.losses}
        given = {name: getattr(sections[f.section], f.field) for name, f in FLAGS.items() if f.section in sections}
        return {"losses": ",".join(self.losses), **given}

    def record(self) -> dict[str, dict[str, Any]]:
        """What a run's record says about each loss: its title, weight and settings."""
        out = {}
        for name, loss in self.build().items():
            settings = dataclasses.asdict(loss.config)
            out[name] = {"title": loss.title, "weight": settings.pop("weight"), "settings": settings}
        return out


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
