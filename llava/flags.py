"""Command-line flags that evaluation, export and chat share."""

import argparse
from typing import Any

DTYPES = ("auto", "float32", "bfloat16", "float16")


def add_flag(parser: argparse._ActionsContainer, name: str, **kwargs: Any) -> None:
    """A flag that may be written with dashes or underscores; the given spelling names the attribute."""
    words = name.removeprefix("--")
    parser.add_argument(
        *dict.fromkeys((name, "--" + words.replace("-", "_"), "--" + words.replace("_", "-"))), **kwargs
    )


def add_device_flags(parser: argparse.ArgumentParser) -> None:
    """Where a model runs and in which numbers; see :func:`resolve_device`."""
    add_flag(parser, "--dtype", choices=DTYPES, default="auto", help="auto: bfloat16 on a GPU, float32 on a CPU")
    add_flag(parser, "--device", default="auto", help="auto: the GPU if there is one")


def resolve_device(device: str, dtype: str) -> tuple[str, str]:
    """Device and name of the dtype behind ``auto``: the GPU if there is one, bfloat16 there, float32 on a CPU."""
    import torch  # heavy modules are imported when the input is known to be right

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    return device, dtype
