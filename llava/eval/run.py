"""Evaluate a checkpoint on one or more benchmarks.

    python -m llava.eval.run --benchmark all --model-path CHECKPOINT \\
        --eval-root playground/data/eval --output-dir RUN

With several processes (one per GPU), start each with ``--stage generate --num-chunks N --chunk-idx I``, and then one
with ``--stage score --num-chunks N``; ``scripts/eval`` does this. Running the same command again continues a killed
run.
"""

import argparse
import logging
from functools import partial
from pathlib import Path

from llava.console import setup_console
from llava.errors import InputError, run_cli
from llava.eval.checkpoint import open_checkpoint
from llava.eval.evaluate import EvalOptions, Task, answer, score, score_answers, write_scores
from llava.eval.records import read_answers, subset
from llava.eval.registry import BENCHMARKS, FURTHER, select
from llava.flags import add_device_flags, add_flag

logger = logging.getLogger("llava.eval")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; every flag may be written with dashes or underscores."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )

    flag = partial(add_flag, parser)
    names = f"{', '.join(BENCHMARKS)} (all), {', '.join(FURTHER)}"
    flag("--benchmark", default="all", help=f"all, or names separated by commas, of {names}")
    flag("--model-path", help="checkpoint folder or hub name")
    flag("--model-base", help="language model that a projector-only checkpoint belongs to")
    flag("--eval-root", type=Path, required=True, help="folder with one folder per benchmark")
    flag("--output-dir", type=Path, required=True, help="output folder for answers and scores")
    flag("--conv-mode", help="prompt template (default: the one the checkpoint was tuned with)")
    flag("--batch-size", type=int, default=8, help="questions per batch; does not change the answers")
    flag("--max-new-tokens", type=int, help="maximum answer length in tokens (default: the benchmark's own)")
    flag("--limit", type=int, help="use only about this many questions, spread over the benchmark")
    add_device_flags(parser)
    flag("--attn-implementation", help="as in transformers")
    flag("--num-chunks", type=int, default=1, help="number of processes that share the questions")
    flag("--chunk-idx", type=int, default=0, help="which of them this is, from 0")
    flag("--stage", choices=("all", "generate", "score"), default="all", help="generate answers, score them, or both")
    flag(
        "--answers-file",
        type=Path,
        help="score this file of answers (one benchmark; needs no model)",
    )
    flag("--overwrite", action="store_true", help="discard existing answers")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    arguments = parse(argv)
    setup_console(times=False)
    options = EvalOptions(
        eval_root=arguments.eval_root,
        output_dir=arguments.output_dir,
        conv_mode=arguments.conv_mode,
        batch_size=arguments.batch_size,
        max_new_tokens=arguments.max_new_tokens,
        limit=arguments.limit,
        num_chunks=arguments.num_chunks,
        chunk_idx=arguments.chunk_idx,
        overwrite=arguments.overwrite,
    )
    tasks = [Task.load(benchmark, options.eval_root) for benchmark in select(arguments.benchmark)]
    if arguments.answers_file is not None:
        return _score_file(arguments.answers_file, tasks, options)
    if not arguments.model_path:
        raise InputError("--model-path is missing: give a checkpoint, or existing answers with --answers-file")
    if arguments.stage == "all" and options.num_chunks > 1:
        raise InputError(
            f"--num-chunks {options.num_chunks} needs --stage generate for every chunk and then --stage score once"
        )
    for task in tasks if arguments.stage != "score" else []:
        task.check_pictures(options.limit)
    checkpoint, load_model = open_checkpoint(
        arguments.model_path,
        arguments.model_base,
        arguments.device,
        arguments.dtype,
        arguments.attn_implementation,
    )
    for task in tasks:
        if arguments.stage != "score":
            answer(task, checkpoint, options, load_model)
        if arguments.stage != "generate":
            content = score(task, checkpoint, options)
            print(f"{content['column']}: {content['score']:.2f}")
    if arguments.stage != "generate" and any(task.benchmark.name in BENCHMARKS for task in tasks):
        scores = write_scores(options.output_dir, checkpoint)
        if "avg" in scores:
            print(f"Avg: {scores['avg']:.2f}")


def _score_file(path: Path, tasks: list[Task], options: EvalOptions) -> None:
    if len(tasks) != 1:
        raise InputError("--answers-file needs exactly one benchmark: name it with --benchmark")
    answers = read_answers(path)
    target = options.output_dir / f"{tasks[0].benchmark.name}.json"
    if target.exists() and not options.overwrite:
        raise InputError(f"{target} exists; pass --overwrite to replace it, or choose another --output-dir")
    asked = subset(tasks[0].questions, options.limit)
    settings = {"answers_file": str(path), "models": sorted({answer.model_id for answer in answers})}
    content = score_answers(tasks[0].benchmark, asked, answers, options.output_dir, settings, options.limit)
    print(f"{content['column']}: {content['score']:.2f}")


if __name__ == "__main__":
    run_cli(main)
