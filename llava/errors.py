"""Exceptions that end a command with one readable message, and how entry points show them."""

import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

LAST_WORDS = "ALIGN_TI_LAST_WORDS"
"""Environment variable: a folder for the final messages of processes. The program that starts several processes sets it
and, when all have ended, shows each message once, as the last lines (``align_ti.launch.supervise``)."""


class InputError(ValueError):
    """Invalid input; the message says what was found, what was expected and what to do."""


class Stopped(Exception):
    """A command was asked to stop and did so cleanly.

    Args:
        message: What was done, and how to continue.
        status: Exit status, 128 plus the signal's number.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def run_cli(main: Callable[[], int | None]) -> None:
    """Run an entry point and exit.

    ``InputError`` becomes one readable message and exit status 2; ``Stopped`` exits with its own status.

    Args:
        main: The entry point; it returns the exit status (None counts as 0).
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
        status = 1  # this process failed only because the other one ended
    sys.stdout.flush()
    sys.exit(status)


def say_last(message: str) -> None:
    """Show the final message of a process, or leave it for the program that started the process."""
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
    """The final messages in a folder, ordered by rank, each once."""
    files = sorted(file for file in Path(folder).iterdir() if not file.name.startswith("."))
    return list(dict.fromkeys(file.read_text(encoding="utf-8") for file in files))


def _another_process_spoke(patience: float = 2.0) -> bool:
    """Whether another process of the same training has left a final message; waits a moment for one."""
    folder = os.environ.get(LAST_WORDS)
    if not folder or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return False
    until = time.monotonic() + patience
    while not last_words(folder):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True
