"""The exceptions that end a command with one readable line, and how entry points show them."""

import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

LAST_WORDS = "ALIGN_TI_LAST_WORDS"
"""Environment variable: a folder for the messages that processes end with. Whoever started several processes sets it
and shows the messages once all have ended, each once and as the last lines (``align_ti.launch.supervise``)."""


class InputError(ValueError):
    """Wrong input: the message says what was found, what was expected and what to do."""


class Stopped(Exception):
    """A command was told to stop and did so in good order.

    Args:
        message: What was done, and how to go on.
        status: Exit status, 128 plus the signal's number.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def run_cli(main: Callable[[], int | None]) -> None:
    """Run an entry point; ``InputError`` becomes one readable message and exit status 2, ``Stopped`` its own status.

    Args:
        main: The entry point; its return value (``None`` counts as 0) is the exit status.
    """
    try:
        status = main() or 0
    except InputError as error:
        logging.getLogger("llava").debug("input error", exc_info=True)
        say_last(f"error: {error}")
        status = 2
    except Stopped as stop:
        say_last(str(stop))
        status = stop.status
    except KeyboardInterrupt:
        say_last("interrupted")
        status = 130
    except Exception:
        if not _another_process_spoke():
            raise
        status = 1  # broken off by the other's end
    sys.stdout.flush()
    sys.exit(status)


def say_last(message: str) -> None:
    """Show a message that a process ends with, or leave it to the process that started this one."""
    folder = os.environ.get(LAST_WORDS)
    if folder and Path(folder).is_dir():
        rank = int(os.environ.get("RANK", "0"))
        handle, name = tempfile.mkstemp(dir=folder, prefix=".")
        with open(handle, "w", encoding="utf-8") as file:
            file.write(message)
        os.replace(name, Path(folder) / f"{rank:06d}")
    else:
        sys.stderr.write(message + "\n")


def last_words(folder: str | Path) -> list[str]:
    """The messages in a folder, in the order of the ranks, each once."""
    files = sorted(file for file in Path(folder).iterdir() if not file.name.startswith("."))
    return list(dict.fromkeys(file.read_text(encoding="utf-8") for file in files))


def _another_process_spoke(patience: float = 2.0) -> bool:
    """Whether a process of the same training has said why it ended; waits a moment for it."""
    folder = os.environ.get(LAST_WORDS)
    if not folder or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return False
    until = time.monotonic() + patience
    while not last_words(folder):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True
