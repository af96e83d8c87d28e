"""Run a launcher of several processes: pass signals on to the training processes, and end with one clear message."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llava.errors import LAST_WORDS, last_words

if TYPE_CHECKING:
    import psutil

PASSED_ON = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
"""Signals that are passed on to the training, which then saves a checkpoint; SIGINT and SIGHUP as SIGTERM."""


def run_supervised(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a training command until it ends.

    A single training process replaces this one. Several run in a separate session, so that only this process receives a
    Ctrl-C: the first asks the training to save a checkpoint and stop, the second kills it at once.

    Args:
        command: ``python -m MODULE ...``, or the command of a launcher.
        environment: Its complete environment.

    Returns:
        Exit status: that of the training, or 128 plus the number of the signal that stopped it.
    """
    if command[2] not in ("torch.distributed.run", "deepspeed.launcher.runner"):
        sys.stdout.flush()
        os.execvpe(command[0], list(command), dict(environment))
    words = list(command)
    if words[2] == "torch.distributed.run":
        words[2] = "align_ti.launch.quiet_torchrun"
    else:
        words.insert(3, "--quiet")
    with tempfile.TemporaryDirectory(prefix="align_ti_") as folder:
        # Descriptors that the caller made inheritable (a lock) stay open in the training.
        process = subprocess.Popen(
            words, env={**environment, LAST_WORDS: folder}, start_new_session=True, close_fds=False
        )
        received = _wait(process)
        messages = last_words(folder)
    status = process.returncode
    if status and received:
        status = 128 + received
    elif status < 0:
        status = 128 - status
    if status and not messages:
        messages = [f"error: the training ended with status {status}; the first traceback above says why"]
    if status:
        sys.stderr.write("".join(f"\n{message}" for message in messages) + "\n")
    return 2 if status == 1 and any(message.startswith("error: ") for message in messages) else status


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait until the launcher has ended; returns the first signal that was passed on, 0 for none."""
    received: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        received.append(number)
        if number == signal.SIGINT and received.count(signal.SIGINT) > 1:
            _end(process)
            return
        if number == signal.SIGINT:
            sys.stderr.write("\nsaving a checkpoint, then stopping; Ctrl-C again stops at once\n")
        sent = number if number in (signal.SIGTERM, signal.SIGUSR1) else signal.SIGTERM
        for worker in workers(process.pid):
            worker.send_signal(sent)

    former = {number: signal.signal(number, pass_on) for number in PASSED_ON}
    try:
        process.wait()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    return received[0] if received else 0


def workers(launcher: int) -> "list[psutil.Process]":
    """The training processes that a launcher started, without their own child processes.

    Args:
        launcher: The launcher's process id.
    """
    import psutil  # the command is also shown, without it, by a Python that has nothing installed

    found = []
    try:
        waiting = psutil.Process(launcher).children()
    except psutil.NoSuchProcess:
        return []
    while waiting:
        process = waiting.pop()
        try:
            if "LOCAL_RANK" in process.environ():
                found.append(process)
            else:
                waiting += process.children()
        except psutil.Error:
            continue
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the launcher's whole session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
