"""``python -m llava.data.prepare``; see :mod:`llava.data.prepare.cli`."""

from llava.data.prepare.cli import main
from llava.errors import run_cli

if __name__ == "__main__":
    run_cli(main)
