"""Programs that take this process over."""

import runpy
import sys
from collections.abc import Sequence


def run_module(module: str, words: Sequence[str]) -> int:
    """Run ``python -m MODULE WORDS`` in this process.

    Returns:
        Exit status, where the module does not exit by itself.
    """
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0
