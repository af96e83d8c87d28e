"""Hold conversations with long answers out of a training mix, to measure exposure bias (the paper, appendix B.4.1).

    python -m align_ti.studies.hold_out --data_path MIX.json --model_name_or_path Qwen/Qwen2-0.5B --version qwen

writes these files next to the mix, or into ``--out``:

    MIX-held-out.json            1,000 random conversations whose first answer has more than 100 tokens
    MIX-train.json               the mix without them and without exact duplicates of them
    MIX-held-out.manifest.json   files, hashes, counts, seed and indices of the entries

Students are trained on the second (``--data_path MIX-train.json``), Figs. 2 and 6 are measured on the first.
Entries are copied unchanged. The mix is read twice, sequentially; it is never held in memory.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from align_ti.studies.exposure_bias.long_answers import first_answers
from llava.conversation import Template, get_template
from llava.data.annotations.entry import parse_entry
from llava.data.annotations.json_stream import Row, iter_rows, split_paths
from llava.data.annotations.table import open_annotations
from llava.data.tokenize import load_tokenizer
from llava.errors import InputError, run_cli
from llava.export.history import read_history
from llava.files import write_text
from llava.prepare.download import sha256_of
from llava.prepare.output import EntryWriter
from llava.prepare.rows import Converted
from llava.prepare.tally import content_key

HELD_OUT, TRAIN = "-held-out", "-train"


@dataclass(frozen=True)
class Split:
    """The files of a split."""

    held_out: Path
    train: Path

    @classmethod
    def of(cls, mix: Path, folder: Path | None = None) -> "Split":
        """The split of a mix, next to the mix or in another folder."""
        place = folder or mix.parent
        return cls(place / f"{mix.stem}{HELD_OUT}{mix.suffix}", place / f"{mix.stem}{TRAIN}{mix.suffix}")

    @property
    def manifest(self) -> Path:
        """Records how the split was made; written last."""
        return self.held_out.with_suffix(".manifest.json")


def choose(
    files: Sequence[Path],
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    samples: int,
    more_than: int,
    seed: int,
) -> dict[int, int]:
    """Choose the entries of a mix to hold out.

    Args:
        files: Files of the mix, in order.
        tokenizer: Tokenizer that counts the tokens of answers, including the end-of-turn token.
        template: Prompt template.
        samples: Number of entries to hold out.
        more_than: Number of tokens that the first answer must exceed.
        seed: Random seed of the choice.

    Returns:
        Index of an entry (counted over all files) -> key of its images and conversations; keys are unique.

    Raises:
        InputError: There are fewer than ``samples``.
    """
    annotations = open_annotations(",".join(map(str, files)))
    chosen: dict[int, int] = {}
    for index, answer in first_answers(annotations, tokenizer, template, seed):
        if answer.length <= more_than:
            continue
        entry = annotations[index]
        key = content_key(Converted(entry={"conversations": entry["conversations"]}, images=entry["image"]))
        if key not in chosen.values():
            chosen[index] = key
        if len(chosen) == samples:
            return chosen
    raise InputError(
        f"{len(chosen)} different conversations of {len(annotations):,} begin with an answer of more than {more_than} "
        f"tokens; {samples} are needed: lower --samples or --more_than"
    )


def write_split(files: Sequence[Path], split: Split, chosen: dict[int, int]) -> dict[str, Any]:
    """Write the held-out entries, and the mix without them and their duplicates.

    Returns:
        Content of the manifest: row counts, and size and hash of each file.

    Raises:
        InputError: The files have changed since the entries were chosen.
    """
    keys = set(chosen.values())
    index = repetitions = 0
    size = sum(file.stat().st_size for file in files)
    with (
        EntryWriter(split.held_out) as held_out,
        EntryWriter(split.train) as train,
        tqdm(total=size, unit="B", unit_scale=True, desc=split.train.name, disable=None) as bar,
    ):
        for file in files:
            for row in iter_rows(file, bar.update):
                key = _key(row)
                if index in chosen:
                    if key != chosen[index]:
                        raise InputError(f"{file} has changed while it was read (entry {row.index}); run this again")
                    held_out.write(row.value)
                elif key in keys:
                    repetitions += 1
                else:
                    train.write(row.value)
                index += 1
        if held_out.rows != len(chosen):
            raise InputError(f"{', '.join(map(str, files))} has changed while it was read; run this again")
    return {
        "rows": {"mix": index, "held_out": held_out.rows, "train": train.rows, "repetitions_left_out": repetitions},
        "mix": [_identity(file, file.stat().st_size, sha256_of(file)) for file in files],
        "held_out": _identity(split.held_out, held_out.bytes, held_out.sha256),
        "train": _identity(split.train, train.bytes, train.sha256),
    }


def _key(row: Row) -> int | None:
    """The key of a row's images and conversations; None for a row that training cannot use."""
    entry = parse_entry(row.value)
    if entry.problem:
        return None
    return content_key(Converted(entry={"conversations": entry.conversations}, images=entry.image))


def _identity(file: Path, size: int, digest: str) -> dict[str, Any]:
    return {"file": str(file), "bytes": size, "sha256": digest}


def said_of_training(data: Path, students: Mapping[str, Sequence[str]]) -> str:
    """Whether samples were held out of the students' training, as far as the files show.

    Args:
        data: File of the samples; files written by this program have a manifest.
        students: Name -> checkpoints, whose run folders record their training data.

    Returns:
        A short phrase for a report.
    """
    known = {name: [_holds(data, path) for path in paths] for name, paths in students.items()}
    trained_on = [name for name, of_seeds in known.items() if any(of_seeds)]
    if trained_on:
        was = "was" if len(trained_on) == 1 else "were"
        return f"yes, {', '.join(trained_on)} {was} trained on a mix that contains them"
    unknown = [name for name, of_seeds in known.items() if None in of_seeds]
    if unknown:
        return f"not known for {', '.join(unknown)}: no manifest of align_ti.studies.hold_out names their training data"
    return "no, held out of the mix by align_ti.studies.hold_out"


def _holds(data: Path, checkpoint: str) -> bool | None:
    """Whether a checkpoint's training data contains the samples; None if unknown."""
    stage = read_history(Path(checkpoint)).last
    named = stage.get("data", "data_path") if stage is not None else None
    if not named:
        return None
    trained_on = {file.resolve() for file in split_paths(str(named))}
    manifest = data.with_suffix(".manifest.json")
    content = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {"mix": []}
    if trained_on & {data.resolve(), *(Path(part["file"]).resolve() for part in content["mix"])}:
        return True
    return False if content["mix"] and trained_on == {Path(content["train"]["file"]).resolve()} else None


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--data_path", required=True, help="the mix: a .json or .jsonl file, or several separated by commas"
    )
    parser.add_argument("--model_name_or_path", required=True, help="model whose tokenizer counts the tokens")
    parser.add_argument("--version", default="qwen", help="prompt template")
    parser.add_argument("--samples", type=int, default=1000, help="number of conversations to hold out")
    parser.add_argument("--more_than", type=int, default=100, help="number of tokens that the first answer must exceed")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the choice")
    parser.add_argument("--out", type=Path, help="output folder; default: the folder of the mix")
    arguments = parser.parse_args()
    if arguments.samples < 1 or arguments.more_than < 0:
        raise InputError(
            f"--samples is {arguments.samples} and --more_than {arguments.more_than}; at least 1 and 0 are needed"
        )
    files = split_paths(arguments.data_path)
    split = Split.of(files[0], arguments.out)
    tokenizer = load_tokenizer(arguments.model_name_or_path)
    template = get_template(arguments.version)
    chosen = choose(files, tokenizer, template, arguments.samples, arguments.more_than, arguments.seed)
    split.manifest.unlink(missing_ok=True)
    written = write_split(files, split, chosen)
    how = {name: getattr(arguments, name) for name in ("model_name_or_path", "version", "samples", "more_than", "seed")}
    text = json.dumps({**written, "options": how, "entries": sorted(chosen)}, indent=1, ensure_ascii=False)
    write_text(split.manifest, text + "\n")
    rows = written["rows"]
    sys.stdout.write(
        f"{rows['held_out']:,} of {rows['mix']:,} entries held out in {split.held_out}\n"
        f"{rows['train']:,} left in {split.train} ({rows['repetitions_left_out']:,} duplicates left out)\n"
        f"manifest {split.manifest}\n"
        f"train students with  --data_path {split.train}\n"
    )


if __name__ == "__main__":
    run_cli(main)
