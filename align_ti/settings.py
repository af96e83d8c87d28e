"""Settings: small frozen dataclasses whose fields have a help text, a rule for valid values, and a flag.

A section (``TPAConfig``, ``RibbonConfig``) validates itself when it is created, in Python as on the command line.
Errors name a setting by its path, ``tpa.d``; on the command line they name its flag, ``--tpa_d``.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

from transformers.hf_argparser import string_to_bool

from llava.errors import InputError

Naming = Callable[[str], str]
"""Maps the path of a setting to the name shown in a message."""


class SettingError(InputError):
    """An invalid setting, or settings that do not fit together.

    Args:
        say: Makes the message, given how to name settings: by path or by flag.
    """

    def __init__(self, say: Callable[[Naming], str]) -> None:
        super().__init__(say(str))
        self.say = say


class Rule(NamedTuple):
    """``fits``: whether a value is valid; ``expected``: description of valid values."""

    fits: Callable[[Any], bool]
    expected: str


def is_whole(value: Any, lowest: int) -> bool:
    """Whether a value is an integer (no bool), at least ``lowest``."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= lowest


def is_number(value: Any, above: float = -math.inf) -> bool:
    """Whether a value is a finite number (no bool) above a bound."""
    return isinstance(value, Real) and not isinstance(value, bool) and above < float(value) < math.inf


def whole(lowest: int, expected: str) -> Rule:
    """Integers, at least ``lowest``."""
    return Rule(lambda value: is_whole(value, lowest), expected)


def one_of(names: Sequence[str]) -> Rule:
    """One of several names."""
    return Rule(lambda value: value in names, f"one of {', '.join(names)}")


FACTOR = Rule(lambda value: is_number(value) and value >= 0, "a number, at least 0")
POSITIVE = Rule(lambda value: is_number(value, above=0), "a positive number")
SWITCH = Rule(lambda value: isinstance(value, bool), "True or False")
AUTO_SWITCH = Rule(lambda value: isinstance(value, bool) or value == "auto", "True, False or auto")


def auto_or_bool(value: str) -> bool | str:
    """Parse the flag of an ``AUTO_SWITCH``."""
    return "auto" if value.lower() == "auto" else string_to_bool(value)


def setting(
    default: Any, help: str, rule: Rule, *, flag: str | None = None, flag_type: Callable[[str], Any] | None = None
) -> Any:
    """A field of a section.

    Args:
        default: Its default.
        help: Help text, for ``--help`` and the documentation.
        rule: Valid values.
        flag: Name of its flag without dashes; by default ``SECTION_FIELD``.
        flag_type: Type of the flag, if the field may also have other types.
    """
    return dataclasses.field(
        default=default, metadata={"help": help, "rule": rule, "flag": flag, "flag_type": flag_type}
    )


@dataclass(frozen=True, kw_only=True)
class Section:
    """Settings that belong together; a subclass is a frozen dataclass of ``setting`` fields and names its ``section``.

    Raises:
        SettingError: A value is not allowed by its rule.
    """

    section: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            rule = field.metadata.get("rule")
            if rule is not None:
                self.check(field.name, rule)

    def check(self, name: str, rule: Rule) -> None:
        """Reject a field whose value does not fit its rule."""
        value, path = getattr(self, name), self.path(name)
        if not rule.fits(value):
            raise SettingError(lambda naming: f"{naming(path)} is {value!r}; expected {rule.expected}")

    @classmethod
    def path(cls, name: str) -> str:
        """The path of a field, such as ``tpa.d``; at the top level only its name."""
        return f"{cls.section}.{name}" if cls.section else name
