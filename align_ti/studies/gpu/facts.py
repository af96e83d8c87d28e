"""Facts about this machine: its GPU, the installed packages, and which kernels run."""

import importlib.metadata
import shutil
import subprocess

import torch

import align_ti.studies.cost.__main__  # noqa: F401  (that the benchmark and the training can be imported)
import align_ti.training.train  # noqa: F401
from align_ti.attention.varlen import why_not_varlen

PACKAGES = "torch triton transformers accelerate deepspeed datasets flash-attn liger-kernel torchao peft einops".split()


def main() -> None:
    """Print them."""
    if shutil.which("nvidia-smi"):
        fields = "name,memory.total,driver_version,clocks.sm,clocks.mem,power.limit"
        subprocess.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv"], check=False)
    for package in PACKAGES:
        try:
            print(package, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            print(package, "is not installed")
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        print(properties.name, f"{properties.total_memory / 2**30:.1f} GiB", "CUDA", torch.version.cuda)
        print("cuDNN", torch.backends.cudnn.version(), "capability", torch.cuda.get_device_capability())
    print("variable-length FlashAttention:", why_not_varlen() or "runs")


if __name__ == "__main__":
    main()
