"""What made a result: the command, the commit, the machine. Said beside every result that is kept."""

import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def run_facts(module: str) -> dict[str, str]:
    """Facts of this process.

    Args:
        module: what was run with ``python -m``.

    Returns:
        ``command``, ``commit`` (``unknown`` outside a repository) and ``machine``, in words.
    """
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=REPOSITORY)
    return {
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "commit": commit.stdout.strip() or "unknown",
        "machine": f"{os.cpu_count()} cores, {cpu_name()}, Python {platform.python_version()}",
    }


def cpu_name() -> str:
    """The processor's model, or its architecture where the system does not say."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
