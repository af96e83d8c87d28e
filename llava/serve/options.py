"""Command-line flags that the terminal and the web page share."""

import argparse

from llava.flags import add_device_flags, add_flag


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """How checkpoints are loaded and prompted."""
    add_flag(parser, "--model-base", help="language model that a projector-only checkpoint belongs to")
    add_flag(parser, "--conv-mode", help="prompt template; by default the one the checkpoint was tuned with")
    add_device_flags(parser)
    bits = parser.add_mutually_exclusive_group()
    add_flag(bits, "--load-8bit", action="store_true", help="language model in 8 bits (bitsandbytes)")
    add_flag(bits, "--load-4bit", action="store_true", help="language model in 4 bits (bitsandbytes)")


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """How answers are chosen."""
    add_flag(parser, "--temperature", type=float, default=0.0, help="0 is greedy, above 0 samples")
    add_flag(parser, "--top-p", type=float, default=1.0, help="sample from the likeliest tokens of this total")
    add_flag(parser, "--max-new-tokens", type=int, default=512, help="limit of an answer")
