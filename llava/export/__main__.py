"""Convert a checkpoint to transformers' own LLaVA and back, or write its model card.

python -m llava.export --to hf --model_path RUN --output DIR [--push_to_hub USER/NAME]
python -m llava.export --from hf --model_path HF_DIR --output DIR
python -m llava.export --to llava --model_path ADAPTER_OR_PROJECTOR [--model_base BASE] --output DIR
python -m llava.export --to card --model_path RUN [--scores EVAL_DIR]
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llava.console import setup_console
from llava.errors import InputError, run_cli
from llava.flags import DTYPES, add_flag

if TYPE_CHECKING:
    import torch

TARGETS = (
    "hf: transformers' format; llava: a full checkpoint of this package, LoRA merged; card: only a run's README.md"
)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line; every flag may be written with dashes or underscores."""
    description, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m llava.export",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    flag = partial(add_flag, parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--to", choices=("hf", "llava", "card"), help=TARGETS)
    what.add_argument("--from", dest="source", choices=("hf",), help="hf: from transformers' format to this package's")
    flag("--model_path", required=True, help="checkpoint: folder or hub name")
    flag("--model_base", help="language model that a projector-only checkpoint belongs to")
    flag("--output", type=Path, help="output folder; must be new or empty")
    flag("--version", help="prompt template, if the checkpoint names none or a wrong one")
    flag("--dtype", choices=DTYPES, default="auto", help="dtype of the written weights (auto: the checkpoint's own)")
    flag("--scores", type=Path, help="scores for the card: an output folder of llava.eval.run, or a scores.json")
    flag("--push_to_hub", metavar="USER/NAME", help="upload the export to this repository of the Hugging Face Hub")
    flag("--private", action="store_true", help="make a new repository of the Hub private")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    arguments = parse(argv)
    setup_console(times=False)
    if arguments.to == "card":
        return write_card_only(arguments)
    output = checked_output(arguments.output)
    if arguments.push_to_hub:
        from llava.export.hub import check_can_push

        if arguments.to != "hf":
            raise InputError("--push_to_hub needs --to hf: only that format is useful to others on the Hub")
        check_can_push(arguments.push_to_hub)
    import torch  # heavy modules are imported only after the input has been checked

    dtype = None if arguments.dtype == "auto" else getattr(torch, arguments.dtype)
    if arguments.source:
        from llava.export.from_hf import import_from_hf

        import_from_hf(arguments.model_path, output, arguments.version, dtype)
    elif arguments.to == "llava":
        from llava.export.to_llava import merge_to_llava

        merge_to_llava(arguments.model_path, output, arguments.model_base, dtype)
    else:
        export(arguments, output, dtype)
    print(output)


def export(arguments: argparse.Namespace, output: Path, dtype: torch.dtype | None) -> None:
    """``--to hf``: the model, its card, and the upload."""
    from llava.export.card import write_card
    from llava.export.history import read_history
    from llava.export.to_hf import export_to_hf
    from llava.export.usage import usage

    history = read_history(Path(arguments.model_path), arguments.scores)
    exported = export_to_hf(arguments.model_path, output, arguments.version, arguments.model_base, dtype)
    repository = arguments.push_to_hub
    name = repository or output.resolve().name
    write_card(output, history, usage(exported, name), name.rpartition("/")[2])
    if repository:
        from llava.export.hub import push

        print(push(output, repository, arguments.private))


def write_card_only(arguments: argparse.Namespace) -> None:
    """``--to card``: rewrite the card of a run, for example after its evaluation.

    Raises:
        InputError: The path is not a run folder.
    """
    from llava.export.card import write_card
    from llava.export.history import read_history

    folder = Path(arguments.model_path)
    history = read_history(folder, arguments.scores)
    if history.last is None:
        raise InputError(f"{folder} has no run_config.json; expected the output folder of a training run")
    written = write_card(folder, history)
    if written is None:
        raise InputError(
            f"{folder / 'README.md'} was not written by this program and is not overwritten; move it away first"
        )
    print(written)


def checked_output(output: Path | None) -> Path:
    """The folder to write.

    Raises:
        InputError: No folder was given, or it is not empty.
    """
    if output is None:
        raise InputError("--output is missing: name the folder to write")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"--output {output} exists and is not empty; choose a new folder")
    return output


if __name__ == "__main__":
    run_cli(main)
