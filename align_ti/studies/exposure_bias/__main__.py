"""The command of this study: from checkpoints and data to JSON, Markdown and a figure.

Repeat ``--student`` with the same name for several seeds of a student: its curves are then means over the seeds.
"""

import argparse
from pathlib import Path

from align_ti.studies.common.checkpoints import common_template, parse_groups
from align_ti.studies.common.provenance import run_facts
from align_ti.studies.common.report import write_report
from align_ti.studies.exposure_bias.long_answers import batches, find_long_answers
from align_ti.studies.exposure_bias.measure import ENDED, measure
from align_ti.studies.exposure_bias.report import as_markdown, curves, draw, over_seeds
from align_ti.studies.hold_out import said_of_training
from align_ti.training.teacher import check_same_tokenizer
from llava.console import setup_console
from llava.data.annotations.table import open_annotations
from llava.errors import InputError, run_cli
from llava.flags import add_device_flags
from llava.inference.checkpoint import load
from llava.inference.end_of_turn import EndOfTurn


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--teacher", required=True, metavar="CHECKPOINT")
    parser.add_argument(
        "--student",
        action="append",
        required=True,
        metavar="NAME=CHECKPOINT",
        help="repeat a name for further seeds of a student",
    )
    parser.add_argument("--data", required=True, help="annotation file; the paper keeps these samples out of training")
    parser.add_argument(
        "--image-folder", type=Path, help="folder that image paths are relative to; default: the data's folder"
    )
    parser.add_argument("--samples", type=int, default=1000, help="number of conversations, drawn at random")
    parser.add_argument("--max-new-tokens", type=int, default=100, help="number of generation steps")
    parser.add_argument("--min-answer-tokens", type=int, help="minimum answer length; default: --max-new-tokens")
    parser.add_argument(
        "--ended",
        choices=ENDED,
        default=ENDED[0],
        help="treatment of steps after the end of a response in the figure; the table shows both",
    )
    parser.add_argument("--batch-size", type=int, default=8, help="does not change the responses")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the samples and of the responses")
    parser.add_argument("--conv-mode", help="prompt template; default: the one that all checkpoints were trained with")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument("--name", default="exposure_bias", help="name of the output files")
    add_device_flags(parser)
    arguments = parser.parse_args()
    setup_console(times=False)
    groups = parse_groups(arguments.student, "--student")
    paths = {f"{name}/{seed}": path for name, seeds in groups.items() for seed, path in enumerate(seeds)}
    if arguments.max_new_tokens < 1:
        raise InputError(f"--max-new-tokens is {arguments.max_new_tokens}; it must be at least 1")
    template = common_template({"the teacher": arguments.teacher, **paths}, arguments.conv_mode)
    teacher = load(arguments.teacher, device=arguments.device, dtype=arguments.dtype)
    students = {name: load(path, device=arguments.device, dtype=arguments.dtype) for name, path in paths.items()}
    for name, student in students.items():
        check_same_tokenizer(student.tokenizer, teacher.tokenizer, paths[name], arguments.teacher)
    answers = find_long_answers(
        open_annotations(arguments.data),
        teacher.tokenizer,
        template,
        samples=arguments.samples,
        at_least=arguments.min_answer_tokens or arguments.max_new_tokens,
        image_folder=arguments.image_folder,
        seed=arguments.seed,
    )
    aspect: str | None = getattr(teacher.model.config, "image_aspect_ratio", None)
    stop = EndOfTurn.of(template, teacher.tokenizer, teacher.model)
    errors = measure(
        teacher.model,
        {name: student.model for name, student in students.items()},
        batches(answers, arguments.batch_size, stop.pad_id, teacher.image_processor, aspect),
        stop,
        steps=arguments.max_new_tokens,
        seed=arguments.seed,
        samples=len(answers),
    )
    seeds = {
        ended: {
            name: [curves(errors[f"{name}/{seed}"], ended) for seed in range(len(group))]
            for name, group in groups.items()
        }
        for ended in ENDED
    }
    results = {
        ended: {name: over_seeds(of_student) for name, of_student in of_all.items()} for ended, of_all in seeds.items()
    }
    facts = {
        **run_facts("align_ti.studies.exposure_bias"),
        "samples": str(len(answers)),
        "seeds": ", ".join(f"{len(group)} of {name}" for name, group in groups.items()),
        "samples in training": said_of_training(Path(arguments.data), groups),
        "dtype": str(teacher.model.dtype).removeprefix("torch."),
    }
    text = as_markdown(results, seeds, arguments.ended, facts)
    content = {"ended": arguments.ended, **facts, "students": results, "by seed": seeds}
    write_report(arguments.out, arguments.name, content, text, draw(results[arguments.ended]))


if __name__ == "__main__":
    run_cli(main)
