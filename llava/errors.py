"""The one exception for what a user can get wrong, and how entry points show it."""

import logging
import sys
from collections.abc import Callable


class InputError(ValueError):
    """Wrong input: the message says what was found, what was expected and what to do."""


def run_cli(main: Callable[[], int | None]) -> None:
    """Run an entry point; an ``InputError`` becomes one readable message and exit status 2.

    Args:
        main: the entry point; its return value (``None`` counts as 0) is the exit status.
    """
    try:
        sys.exit(main() or 0)
    except InputError as error:
        logging.getLogger("llava").debug("input error", exc_info=True)
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
