"""Convert flags between a command line's words and a mapping, and check them against a trainer's flags."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from llava.errors import InputError

Flags = Mapping[str, tuple[str, ...]]
"""The words after each flag, by its name with underscores; empty for a switch."""

DISTILLATION = "align_ti.training.train"
SUPERVISED = "llava.train.train"


def parse_flags(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read ``--name value ...``, ``--name=value`` and ``--name``; dashes in names count as underscores.

    If a flag is given twice, the last one counts.

    Raises:
        InputError: There is a word before the first flag.
    """
    flags: dict[str, tuple[str, ...]] = {}
    name = None
    for word in words:
        if word.startswith("--") and len(word) > 2:
            flag, equals, value = word[2:].partition("=")
            name = flag.replace("-", "_")
            flags.pop(name, None)
            flags[name] = (value,) if equals else ()
        elif name is None:
            raise InputError(f"unexpected argument {word!r}: no flag takes it")
        else:
            flags[name] = (*flags[name], word)
    return flags


def words_of(flags: Flags) -> list[str]:
    """The inverse of :func:`parse_flags`."""
    return [word for name, values in flags.items() for word in (f"--{name}", *values)]


def take_option(words: Sequence[str], name: str) -> tuple[str | None, list[str]]:
    """The value of an option, and the words without it; if given twice, the last one counts.

    Raises:
        InputError: It has no value.
    """
    value, rest, following = None, [], iter(words)
    for word in following:
        if word == name:
            value = next(following, None)
            if value is None:
                raise InputError(f"{name} is the last word; expected a value behind it")
        elif word.startswith(f"{name}="):
            value = word.partition("=")[2]
        else:
            rest.append(word)
    return value, rest


def take_switch(words: Sequence[str], name: str) -> tuple[bool, list[str]]:
    """Whether a switch is among the words, and the words without it."""
    return name in words, [word for word in words if word != name]


@cache
def trainer_flags(module: str) -> frozenset[str] | None:
    """Names of all flags of a training and its plan, with underscores; None for an unknown module.

    This imports the trainer, which takes seconds.
    """
    if module not in (DISTILLATION, SUPERVISED):
        return None
    from align_ti.training.arguments import DistillArguments
    from llava.train.parsing import RENAMED_FLAGS
    from llava.train.plan.arguments import known_flags

    known = known_flags(*([DistillArguments] if module == DISTILLATION else []))
    return frozenset(flag.lstrip("-").replace("-", "_") for flag in (*known, *RENAMED_FLAGS))


def refuse_unknown_flags(module: str, names: Iterable[str], also_known: Iterable[str]) -> None:
    """Reject flags that neither the trainer nor the launcher has.

    Args:
        module: The trainer.
        names: Flags on the command line, with underscores.
        also_known: Flags of the launcher.

    Raises:
        InputError: A flag is unknown; the message names the most similar one, or says that it belongs to distillation.
    """
    known = trainer_flags(module)
    if known is None:
        return
    for name in names:
        if name in known or name in also_known:
            continue
        if module == SUPERVISED and name in (trainer_flags(DISTILLATION) or ()):
            raise InputError(
                f"--{name} belongs to distillation, and this stage has no teacher; give it to `align-ti distill` or a "
                "script of scripts/distill/ other than sft.sh"
            )
        from llava.train.parsing import refuse_unknown

        refuse_unknown([f"--{name}"], [f"--{flag}" for flag in {*known, *also_known}])
