"""``python -m llava.prepare``; see :mod:`llava.prepare.cli`."""

from llava.errors import run_cli
from llava.prepare.cli import main

if __name__ == "__main__":
    run_cli(main)
