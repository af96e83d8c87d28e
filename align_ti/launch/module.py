"""Run another program in this process."""

import runpy
import sys
from collections.abc import Sequence


def run_module(module: str, words: Sequence[str]) -> int:
    """Run ``python -m MODULE WORDS`` in this process.

    Returns:
        Exit status, if the module returns.
    """
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0
