"""Where a result comes from: command, commit, machine and run time. Recorded with every result that is kept."""

import platform
import shlex
import sys
import time
from pathlib import Path

from llava.cores import cores
from llava.train.run_record import code_commit

STARTED = time.monotonic()
REPOSITORY = Path(__file__).resolve().parents[3]


def run_facts(module: str) -> dict[str, str]:
    """Provenance of a result of this process.

    Args:
        module: Module that was run with ``python -m``.

    Returns:
        ``command``, ``commit`` (``unknown`` outside a repository), ``machine`` and ``time`` (since the process
        started), as text.
    """
    return {
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "commit": code_commit() or "unknown",
        "machine": f"{cores()} cores, {cpu_name()}, Python {platform.python_version()}",
        "time": f"{time.monotonic() - STARTED:.0f} s",
    }


def cpu_name() -> str:
    """The processor's model name, or its architecture if the system does not report one."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
