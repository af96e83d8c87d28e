"""A command whose output goes to a log file, and to the terminal if somebody watches."""

import os
import pty
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

TAIL = 20
"""Lines of the log that are shown when a command fails unseen."""


def run_logged(command: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path) -> int:
    """Run a command to its end.

    On a terminal, the command writes to one as well, so that it shows its progress bars; the log keeps the last state
    of each. Without one, only the log is written, and its end is shown if the command fails.

    Args:
        command: With its arguments.
        log: File for what it writes to standard output and standard error.
        environment: All of its environment.
        folder: Where it runs.

    Returns:
        Exit status.
    """
    watched = sys.stdout.isatty()
    reading, writing = _terminal() if watched else os.pipe()
    with open(log, "wb") as file:
        try:
            process = subprocess.Popen(command, cwd=folder, env=dict(environment), stdout=writing, stderr=writing)
        finally:
            os.close(writing)
        rest = b""
        while part := _read(reading):
            if watched:
                sys.stdout.buffer.write(part)
                sys.stdout.buffer.flush()
            *lines, rest = (rest + part).split(b"\n")
            file.writelines(_shown_last(line) + b"\n" for line in lines)
            file.flush()
        file.write(_shown_last(rest))
    os.close(reading)
    status = process.wait()
    if status and not watched:
        end = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
        print("\n".join([*end, f"the whole output is in {log}"]), flush=True)
    return status


def _terminal() -> tuple[int, int]:
    """The two ends of a new terminal, as large as this one, which is left to end the lines."""
    reading, writing = pty.openpty()
    attributes = termios.tcgetattr(writing)
    attributes[1] &= ~termios.ONLCR
    termios.tcsetattr(writing, termios.TCSANOW, attributes)
    termios.tcsetwinsize(writing, termios.tcgetwinsize(sys.stdout.fileno()))
    return reading, writing


def _read(descriptor: int) -> bytes:
    """What is there; empty at the end, which a terminal reports as an error."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


def _shown_last(line: bytes) -> bytes:
    """What a terminal shows of a line that returned to its beginning."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]
