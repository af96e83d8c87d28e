"""A lock on a run's folder that names its holder and is released when the holder ends."""

import errno
import fcntl
import json
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llava.errors import InputError

logger = logging.getLogger(__name__)

LOCK_FILE = "run.lock"
UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Error codes of file systems without locks."""


@contextmanager
def run_lock(folder: str | Path) -> Iterator[None]:
    """Lock a run's folder, which is created if missing.

    The operating system holds the lock and releases it when the process ends for any reason, so no stale lock is left.
    It also works on network file systems that support ``flock`` (NFS 4, Lustre with ``-o flock``).

    Raises:
        InputError: Another process holds the lock; the message names host, process and command.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not take(handle):
            raise InputError(_in_use(folder, os.pread(handle, 4096, 0)))
        owner = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "command": shlex.join(sys.argv),
        }
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(owner).encode(), 0)
        yield
    finally:
        os.close(handle)


def take(handle: int) -> bool:
    """Acquire the lock of an open file without waiting; False if another process holds it.

    On a file system without locks there is a warning, and the lock counts as acquired.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        logger.warning(
            "the file system has no locks (%s): make sure that nothing else writes to the same folder", error.strerror
        )
    return True


def _in_use(folder: Path, written: bytes) -> str:
    try:
        owner = json.loads(written)
        host, process, since, command = (owner[key] for key in ("host", "process", "since", "command"))
    except (ValueError, KeyError, TypeError):
        return f"{folder} is in use by another training. Wait until it has ended, or choose another --output_dir"
    place = "on this machine" if host == socket.gethostname() else f"on {host}"
    return (
        f"{folder} is in use: process {process} {place} has been training there since {since} ({command[:200]}). Wait "
        f"until it has ended, stop it with `kill {process}` (it saves a checkpoint first), or choose another "
        "--output_dir. A training can outlive its launcher"
    )
