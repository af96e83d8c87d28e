"""Commands that run in parallel and are stopped together."""

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
"""Seconds that a command has to save its state. Launchers give their workers less; DeepSpeed's gives 30."""


class Ended(Exception):
    """No further command is started."""


class Commands:
    """Runs commands, each in a separate session, until they are stopped.

    Only this process receives a Ctrl-C; :meth:`end` passes it on as SIGTERM, on which a training saves a checkpoint.
    """

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._ending = threading.Event()

    def run(self, command: Sequence[str], log: Path, environment: Mapping[str, str], held: int) -> None:
        """Run one command.

        Args:
            command: The command and its arguments.
            log: File for its output.
            environment: Variables added to this process's environment.
            held: A file descriptor of :func:`only_here` that it keeps open.

        Raises:
            Ended: :meth:`end` was called.
            InputError: The command failed; the message has the end of its log.
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
        """Check that commands may still be started.

        Raises:
            Ended: :meth:`end` was called.
        """
        if self._ending.is_set():
            raise Ended

    def end(self) -> None:
        """Stop all commands and start no further ones; :meth:`run` returns when all its processes have ended."""
        self._ending.set()
        with self._lock:
            for process in self._running:
                try:
                    os.killpg(process.pid, signal.SIGTERM)
                except ProcessLookupError:
                    pass


@contextmanager
def only_here(folder: Path, commands: Commands) -> Iterator[int]:
    """Lock a folder; waits until it is free.

    Commands that inherit the file descriptor also hold the lock. A training that outlives its killed table is therefore
    waited for, not started a second time.

    Yields:
        The file descriptor.

    Raises:
        Ended: The commands were stopped.
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
    """Wait, at most ``GRACE`` seconds, until no process of a group is left: a shell may end before its children."""
    until = time.monotonic() + GRACE
    while _lives(group) and time.monotonic() < until:
        time.sleep(0.2)


def _lives(group: int) -> bool:
    """Whether a process group has a process that is not a zombie; zombies remain where nothing reaps orphans."""
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
        except OSError:  # it has ended in the meantime
            continue
        if int(of_group) == group and state != "Z":
            return True
    return False
