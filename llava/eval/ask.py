"""Ask one or several checkpoints the questions of your own file (as LLaVA's ``model_vqa.py`` does).

    python -m llava.eval.ask --model-path CHECKPOINT --question-file questions.jsonl --image-folder images \\
        --answers-file answers.jsonl
    python -m llava.eval.ask --model-path TEACHER STUDENT --question-file questions.jsonl --answers-file answers/

The question file has one question per line, in LLaVA's format: ``{"question_id": 1, "image": "a.jpg", "text": "What is
this?"}``; ``image`` is optional. The answers file has one answer per line, also in LLaVA's format and in the questions'
order. Several checkpoints are loaded one after the other; each writes ``NAME.jsonl`` into a folder.

Running the same command again continues a stopped run; its state is in ``ANSWERS.run`` next to the answers. With
several processes (one per GPU), start each with ``--num-chunks N --chunk-idx I`` and the same answers file; the last
one to finish completes it. ``scripts/eval/ask.sh`` does this.
"""

import argparse
import gc
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from llava.console import setup_console
from llava.conversation import get_template
from llava.errors import InputError, run_cli
from llava.eval.answers import REMEDY, merge_parts
from llava.eval.checkpoint import Checkpoint, open_checkpoint
from llava.eval.evaluate import ask
from llava.eval.questions import read_questions
from llava.eval.records import Answer, chunk
from llava.files import file_sha256
from llava.flags import add_device_flags, add_flag, add_sampling_flags
from llava.inference.question import Question
from llava.inference.sampling import Sampling

if TYPE_CHECKING:
    from llava.inference.draws import Draws

logger = logging.getLogger("llava.eval")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; every flag may be written with dashes or underscores."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    flag = partial(add_flag, parser)
    flag("--model-path", nargs="+", required=True, help="checkpoint folders or hub names, one or several")
    flag("--model-base", help="language model that a projector-only checkpoint belongs to")
    flag("--question-file", type=Path, required=True, help="JSON lines with question_id, text and optionally image")
    flag("--image-folder", type=Path, help="folder of the images (default: the question file's folder)")
    flag("--answers-file", type=Path, required=True, help="output file; with several checkpoints a folder")
    flag("--conv-mode", help="prompt template (default: the one the checkpoint was tuned with)")
    add_sampling_flags(parser)
    flag("--seed", type=int, default=0, help="random seed of sampling, for a temperature above 0")
    flag("--batch-size", type=int, default=8, help="questions per batch; does not change the answers")
    add_device_flags(parser)
    flag("--attn-implementation", help="as in transformers")
    flag("--num-chunks", type=int, default=1, help="number of processes that share the questions")
    flag("--chunk-idx", type=int, default=0, help="which of them this is, from 0")
    flag("--overwrite", action="store_true", help="discard existing answers")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    arguments = parse(argv)
    setup_console(times=False)
    sampling = Sampling(arguments.temperature, arguments.top_p, arguments.max_new_tokens)
    questions = read_questions(arguments.question_file, arguments.image_folder)
    if not chunk(questions, arguments.num_chunks, arguments.chunk_idx):
        print(f"no question for process {arguments.chunk_idx} of {arguments.num_chunks}")
        return
    targets = answers_files(arguments.model_path, arguments.answers_file)
    models = [  # all are checked before the first is loaded
        open_checkpoint(path, arguments.model_base, arguments.device, arguments.dtype, arguments.attn_implementation)
        for path in arguments.model_path
    ]
    for (checkpoint, _), target in zip(models, targets, strict=True):
        get_template(arguments.conv_mode or checkpoint.template)
        refuse_foreign(target, arguments.overwrite)
    for target in targets:
        checkpoint, load_model = models.pop(0)
        settings = settings_of(checkpoint, sampling, arguments)
        ask(
            questions,
            run_folder(target),
            settings,
            load_model,
            batch_size=arguments.batch_size,
            num_chunks=arguments.num_chunks,
            chunk_idx=arguments.chunk_idx,
            overwrite=arguments.overwrite,
            description=checkpoint.model_id,
            draws=_draws(sampling, arguments.seed),
        )
        del load_model  # and with it the model, before the next is loaded
        _free()
        answers = join(target, questions, settings, arguments.num_chunks, arguments.overwrite)
        cut = sum(answer.metadata.get("finish") == "length" for answer in answers)
        note = f", {cut:,} cut off at {sampling.max_new_tokens} tokens" if cut else ""
        print(f"{checkpoint.model_id}: {len(answers):,} of {len(questions):,} answers in {target}{note}")


def answers_files(paths: Sequence[str], target: Path) -> list[Path]:
    """One answers file per checkpoint.

    A single checkpoint writes ``target``. Several write files into the folder ``target``, named after the checkpoints,
    with as many parent folders in the name as needed to tell them apart.

    Raises:
        InputError: There are several checkpoints and ``target`` is a file, or a checkpoint is named twice.
    """
    if len(paths) == 1 and not target.is_dir():
        return [target]
    if target.is_file() or target.suffix == ".jsonl":
        raise InputError(f"--answers-file is {target}, but {len(paths)} checkpoints write one file each; give a folder")
    parts = [[part for part in Path(path).parts if part not in ("/", ".")] for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["-".join(own[-depth:]) for own in parts]
        if len(set(names)) == len(names):
            return [target / f"{name}.jsonl" for name in names]
    raise InputError(f"--model-path names a checkpoint twice: {', '.join(paths)}")


def run_folder(target: Path) -> Path:
    """The folder in which a run keeps its answers so far."""
    return target.with_name(f"{target.name}.run")


def refuse_foreign(target: Path, overwrite: bool) -> None:
    """Reject an existing answers file that this program did not write.

    Raises:
        InputError: There is such a file, and ``overwrite`` is False.
    """
    if target.exists() and not run_folder(target).is_dir() and not overwrite:
        raise InputError(f"{target} exists and was not written by this program; {REMEDY}")


def settings_of(checkpoint: Checkpoint, sampling: Sampling, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything an answer depends on; answers with different settings are never mixed."""
    images = arguments.image_folder or arguments.question_file.parent
    settings = {
        "questions_sha256": file_sha256(arguments.question_file)[:16],
        "image_folder": str(images.resolve()),
        "model": checkpoint.model_id,
        "weights": checkpoint.fingerprint,
        "dtype": checkpoint.dtype,
        "conv_mode": arguments.conv_mode or checkpoint.template,
        "max_new_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
    }
    drawn = {"top_p": sampling.top_p, "seed": arguments.seed}
    return settings | drawn if sampling.temperature > 0 else settings


def join(
    target: Path, questions: Sequence[Question], settings: dict[str, Any], num_chunks: int, overwrite: bool
) -> list[Answer]:
    """Write the answers of all processes so far into ``target``; the last process to finish completes it."""
    with FileLock(run_folder(target) / ".lock"):
        return merge_parts(
            run_folder(target), questions, settings, overwrite=overwrite, num_chunks=num_chunks, target=target
        )


def _draws(sampling: Sampling, seed: int) -> "Draws | None":
    if sampling.temperature == 0:
        return None
    from llava.inference.draws import Draws  # here, since it needs torch

    return Draws(sampling.temperature, sampling.top_p, seed)


def _free() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    run_cli(main)
