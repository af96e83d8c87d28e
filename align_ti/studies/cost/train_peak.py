"""Run a training command unchanged on a CPU and record the peak memory of its tensors.

    python -m align_ti.studies.cost.train_peak PEAK.json align_ti.training.train --losses sft,kd ...

Under ``torchrun``, only the main process writes the file.
"""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from align_ti.studies.common.measure import LiveBytes
from llava.errors import InputError, run_cli


def main() -> None:
    """Entry point."""
    if len(sys.argv) < 3:
        raise InputError("expected PEAK.json MODULE FLAGS: the output file and the command")
    out, module = Path(sys.argv[1]), sys.argv[2]
    sys.argv = [module, *sys.argv[3:]]
    if "--deepspeed" in sys.argv:
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # compiling it would take minutes
    run = importlib.import_module(module).main
    with LiveBytes() as live:

        def see(layer: nn.Module, _: Any) -> None:  # no operation returns, for example, an embedding's weight
            live.add(*layer.parameters(recurse=False), *layer.buffers(recurse=False))

        hook = register_module_forward_pre_hook(see)
        try:
            run()
        finally:
            hook.remove()
    if os.environ.get("RANK", "0") == "0":
        out.write_text(json.dumps({"bytes": live.peak}) + "\n")


if __name__ == "__main__":
    run_cli(main)
