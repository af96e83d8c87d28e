"""Command-line flags that evaluation, export and chat share."""

import argparse
from typing import Any

DTYPES = ("auto", "float32", "bfloat16", "float16")


def add_flag(parser: argparse._ActionsContainer, name: str, **kwargs: Any) -> None:
    """Add a flag that may be written with dashes or underscores; the attribute's name follows the given spelling."""
    words = name.removeprefix("--")
    parser.add_argument(
        *dict.fromkeys((name, "--" + words.replace("-", "_"), "--" + words.replace("_", "-"))), **kwargs
    )


def add_device_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for device and dtype; see :func:`resolve_device`."""
    add_flag(parser, "--dtype", choices=DTYPES, default="auto", help="auto: bfloat16 on a GPU, float32 on a CPU")
    add_flag(parser, "--device", default="auto", help="auto: the GPU if there is one")


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for loading and prompting checkpoints."""
    add_flag(parser, "--model-base", help="language model that a projector-only checkpoint belongs to")
    add_flag(parser, "--conv-mode", help="prompt template (default: the one the checkpoint was tuned with)")
    add_device_flags(parser)
    bits = parser.add_mutually_exclusive_group()
    add_flag(bits, "--load-8bit", action="store_true", help="quantise the language model to 8 bits (bitsandbytes)")
    add_flag(bits, "--load-4bit", action="store_true", help="quantise the language model to 4 bits (bitsandbytes)")


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags for generating answers."""
    add_flag(parser, "--temperature", type=float, default=0.0, help="sampling temperature; 0 is greedy decoding")
    add_flag(
        parser,
        "--top-p",
        type=float,
        default=1.0,
        help="sample from the most likely tokens that together reach this probability",
    )
    add_flag(parser, "--max-new-tokens", type=int, default=512, help="maximum length of an answer in tokens")


def resolve_device(device: str, dtype: str) -> tuple[str, str]:
    """Resolve ``auto``: the GPU if there is one, with bfloat16, else the CPU with float32."""
    import torch  # heavy modules are imported when the input is known to be right

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    return device, dtype
