"""Commands that run beside each other and end together."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from llava.errors import InputError
from llava.train.run_lock import take

logger = logging.getLogger(__name__)

GRACE = 600.0
"""Seconds that a command is given to save what it has. Launchers give less to their workers: DeepSpeed's 30."""


class Ended(Exception):
    """Nothing is begun any more."""


class Commands:
    """Runs commands, each in a session of its own, until told to end.

    A Ctrl-C reaches this process alone; :meth:`end` passes it on as SIGTERM, at which a training saves a checkpoint.
    """

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._ending = threading.Event()

    def run(self, command: Sequence[str], log: Path, environment: Mapping[str, str], held: int) -> None:
        """Run one command.

        Args:
            command: With its arguments.
            log: File for what it says.
            environment: Added to this process's.
            held: A file descriptor that it keeps open, of :func:`only_here`.

        Raises:
            Ended: :meth:`end` was called.
            InputError: It failed; the message has the end of its log.
        """
        with open(log, "w", encoding="utf-8") as file:
            with self._lock:
                self.check()
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                    env={**os.environ, **environment}, start_new_session=True, pass_fds=[held],
                )  # fmt: skip
                self._running.add(process)
            status = process.wait()
            if self._ending.is_set():
                _wait_for_group(process.pid)
        with self._lock:
            self._running.discard(process)
            self.check()
        if status:
            tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            raise InputError(f"{' '.join(command)} ended with status {status}; the end of {log}:\n{tail}")

    def check(self) -> None:
        """Go on only while commands may be begun.

        Raises:
            Ended: :meth:`end` was called.
        """
        if self._ending.is_set():
            raise Ended

    def end(self) -> None:
        """Ask all commands to end, and begin none any more; :meth:`run` returns when what it started is gone."""
        self._ending.set()
        with self._lock:
            for process in self._running:
                try:
                    os.killpg(process.pid, signal.SIGTERM)
                except ProcessLookupError:
                    pass


@contextmanager
def only_here(folder: Path, commands: Commands) -> Iterator[int]:
    """Work in a folder that nothing else works in; waits until it is free.

    Commands that are given the file descriptor hold the folder as well. So a training that outlives its table (one
    that was killed) is waited for, not begun a second time beside it.

    Yields:
        The file descriptor.

    Raises:
        Ended: The commands were ended, now or before.
    """
    commands.check()
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not take(handle):
            owner = os.pread(handle, 32, 0).decode().strip() or "unknown"
            logger.info("%s is worked on by process %s or what it started; waiting for it", folder, owner)
            while not take(handle):
                time.sleep(0.5)
                commands.check()
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield handle
    finally:
        os.close(handle)


def _wait_for_group(group: int) -> None:
    """Until no process of a group is left, at most ``GRACE`` seconds: a shell ends before what it started."""
    until = time.monotonic() + GRACE
    while _lives(group) and time.monotonic() < until:
        time.sleep(0.2)


def _lives(group: int) -> bool:
    """Whether a process group has one that is not a zombie; those stay where nobody takes note of orphans' ends."""
    files = list(Path("/proc").glob("[0-9]*/stat"))
    if not files:  # not Linux
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        return True
    for file in files:
        try:
            state, _, of_group = file.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has ended meanwhile
            continue
        if int(of_group) == group and state != "Z":
            return True
    return False
