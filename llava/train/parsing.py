"""Parsing command lines into dataclasses, with one-line errors."""

import re
import sys
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from transformers import HfArgumentParser

from llava.errors import InputError

RENAMED_FLAGS = {
    "--evaluation_strategy": "--eval_strategy",
}
"""Flags of older transformers that LLaVA-style scripts still pass, and their current names."""


class FlagParser(HfArgumentParser):
    """A parser of dataclass fields: no abbreviated flags, errors as ``InputError``."""

    def __init__(self, *classes: type) -> None:
        super().__init__(list(classes), allow_abbrev=False)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Called by argparse with an error message.

        Raises:
            InputError: Always.
        """
        one_spelling = re.sub(r"(--\w+)/--[\w-]+", r"\1", message)  # each flag may also be written with dashes
        raise InputError(f"{one_spelling}; --help lists all flags")

    @property
    def flags(self) -> frozenset[str]:
        """All flags, as they are written."""
        return frozenset(self._option_string_actions)


def parse_arguments(*classes: type, argv: Sequence[str] | None = None) -> tuple[Any, ...]:
    """Parse the command line into dataclasses, accepting flags that older transformers had.

    Args:
        classes: Dataclasses whose fields are the flags.
        argv: Arguments; ``sys.argv[1:]`` by default. DeepSpeed's launcher adds ``--local_rank=N``, a field of
            transformers' arguments.

    Returns:
        One instance per class, in order.

    Raises:
        InputError: A flag is unknown (the message names the known one that is near) or missing, or a value has the
            wrong type.
    """
    words = renamed(sys.argv[1:] if argv is None else argv)
    parser = FlagParser(*classes)
    _, unknown = parser.parse_known_args(words)
    refuse_unknown(unknown, parser.flags)
    return parser.parse_args_into_dataclasses(args=words)


def renamed(argv: Sequence[str]) -> list[str]:
    """A command line with the current names of renamed flags."""
    out = []
    for word in argv:
        flag, equals, value = word.partition("=")
        out.append(RENAMED_FLAGS.get(flag, flag) + equals + value)
    return out


def refuse_unknown(words: Sequence[str], known: Collection[str]) -> None:
    """Reject words of a command line that belong to no flag.

    Args:
        words: Words left over by a parser.
        known: All flags, with their dashes.

    Raises:
        InputError: There is such a word; the message names the nearest known flag, if one is near.
    """
    for word in words:
        flag = word.partition("=")[0]
        if not flag.startswith("-"):
            raise InputError(f"unexpected argument {word!r}: no flag takes it")
        near = nearest(flag.lstrip("-"), (name.lstrip("-") for name in known))
        if near:
            raise InputError(f"unknown flag {flag}; did you mean --{near}?")
        raise InputError(
            f"unknown flag {flag}; --help lists the flags of this stage. Flags of other stages are unknown here: "
            "`align-ti distill --help` shows where those of distillation are listed"
        )


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a mistyped one stands for; None where none is so near that a typing error explains it.

    Args:
        name: Without dashes in front, which would make any two flags alike.
        known: Likewise.
    """
    return next(iter(get_close_matches(name, known, n=1, cutoff=0.7)), None)
