"""Training commands on two processes of this machine, for the tests; under torchrun this file runs one of them.

DeepSpeed would compile an operator for shared memory first, which takes minutes: it is told that there is none.
"""

import faulthandler
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def two_processes(module: str, *arguments: str) -> str:
    """Run ``python -m MODULE ARGUMENTS`` on two processes, and return their log; skip the test without DeepSpeed."""
    pytest.importorskip("deepspeed")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, __file__, module, *arguments],
        env={**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=280, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


if __name__ == "__main__":
    import deepspeed.ops

    faulthandler.dump_traceback_later(240, exit=True)  # before the test's own patience ends: shows where it hangs
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    importlib.import_module(sys.argv.pop(1)).main()
