"""Answering and scoring benchmarks: the functions behind the command line."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.conversation import get_template
from llava.errors import InputError
from llava.eval.answers import AnswerWriter, merge_parts
from llava.eval.benchmark import Benchmark, MissingFile, how_to_get
from llava.eval.checkpoint import Checkpoint
from llava.eval.records import Answer, chunk, match_answers, subset, with_keys
from llava.eval.registry import BENCHMARKS
from llava.files import file_sha256, write_json
from llava.inference.question import Question

if TYPE_CHECKING:
    from llava.inference.checkpoint import LoadedModel
    from llava.inference.draws import Draws

logger = logging.getLogger(__name__)

SCORES_FILE = "scores.json"


@dataclass(frozen=True)
class EvalOptions:
    """Options of an evaluation; the command line's flags."""

    eval_root: Path
    output_dir: Path
    conv_mode: str | None = None  # None: the benchmark's own, else the checkpoint's
    batch_size: int = 8
    max_new_tokens: int | None = None  # None: the benchmark's own
    limit: int | None = None
    num_chunks: int = 1
    chunk_idx: int = 0
    overwrite: bool = False


@dataclass(frozen=True)
class Task:
    """A benchmark's questions as loaded from its files."""

    benchmark: Benchmark
    question_file: Path
    questions: list[Question]
    root: Path

    @classmethod
    def load(cls, benchmark: Benchmark, eval_root: Path) -> "Task":
        """Read questions and annotations.

        Raises:
            InputError: A file is missing (the message names the command that downloads it), malformed, or does not
                belong to the benchmark.
        """
        try:
            folder, question_file = benchmark.find(eval_root)
            return cls(benchmark, question_file, with_keys(benchmark.load(folder, question_file)), eval_root)
        except MissingFile as error:
            raise InputError(f"{error}; {benchmark.get or how_to_get(eval_root)}") from None

    def check_pictures(self, limit: int | None = None) -> None:
        """Check that the images exist, before a model is loaded.

        Raises:
            InputError: Some are missing; the message counts them and names the first.
        """
        asked = subset(self.questions, limit)
        missing = [q.picture.name for q in asked if q.picture is not None and not q.picture.exists()]
        if missing:
            raise InputError(
                f"{self.benchmark.column}: the images of {len(missing)} of {len(asked)} questions are missing; "
                f"first missing: {missing[0]}; {self.benchmark.get or how_to_get(self.root)}"
            )


def settings_of(task: Task, checkpoint: Checkpoint, options: EvalOptions) -> dict[str, Any]:
    """Everything an answer depends on; answers with different settings are never mixed."""
    return {
        "benchmark": task.benchmark.name,
        "question_file": task.question_file.name,
        "questions_sha256": file_sha256(task.question_file)[:16],
        "model": checkpoint.model_id,
        "weights": checkpoint.fingerprint,
        "dtype": checkpoint.dtype,
        "conv_mode": options.conv_mode or task.benchmark.conv_mode or checkpoint.template,
        "max_new_tokens": options.max_new_tokens or task.benchmark.max_new_tokens,
    }


def answer(task: Task, checkpoint: Checkpoint, options: EvalOptions, load_model: Callable[[], "LoadedModel"]) -> int:
    """Answer this process's share of a benchmark's open questions; returns how many were answered.

    ``load_model`` is called only if there is something to answer.

    Raises:
        InputError: There are answers of another model or with other settings, or an image cannot be read.
    """
    return ask(
        subset(task.questions, options.limit),
        options.output_dir / task.benchmark.name,
        settings_of(task, checkpoint, options),
        load_model,
        batch_size=options.batch_size,
        num_chunks=options.num_chunks,
        chunk_idx=options.chunk_idx,
        overwrite=options.overwrite,
        description=task.benchmark.column,
    )


def ask(
    questions: Sequence[Question],
    folder: Path,
    settings: dict[str, Any],
    load_model: Callable[[], "LoadedModel"],
    *,
    batch_size: int,
    num_chunks: int = 1,
    chunk_idx: int = 0,
    overwrite: bool = False,
    description: str = "",
    draws: "Draws | None" = None,
) -> int:
    """Answer this process's share of the questions that have no answer in ``folder`` yet.

    Args:
        questions: Questions of all processes.
        folder: Folder of the answers, see :mod:`llava.eval.answers`.
        settings: What the answers depend on, including ``model``, ``conv_mode`` and ``max_new_tokens``.
        load_model: Called only if there is something to answer.
        batch_size: Questions per batch.
        num_chunks, chunk_idx: Number of processes and index of this one.
        overwrite: Discard existing answers.
        description: Text of the progress bar.
        draws: How answers are sampled; greedy by default.

    Returns:
        Number of questions that were answered.

    Raises:
        InputError: There are answers of another model or with other settings, or an image cannot be read.
    """
    template = get_template(settings["conv_mode"])
    share = chunk(questions, num_chunks, chunk_idx)
    with AnswerWriter(folder, settings, settings["model"], chunk_idx, num_chunks, overwrite) as writer:
        todo = [question for question in share if question.key not in writer.done]
        if not todo:
            logger.info("%s: all %d questions are already answered", description, len(share))
            return 0
        from llava.inference.generate import generate_answers  # here, since scoring needs neither torch nor a model

        generate_answers(
            load_model(),
            todo,
            template,
            max_new_tokens=settings["max_new_tokens"],
            batch_size=batch_size,
            on_answer=writer.write,
            description=description,
            done=len(share) - len(todo),
            draws=draws,
        )
    return len(todo)


def score(task: Task, checkpoint: Checkpoint, options: EvalOptions) -> dict[str, Any]:
    """Merge the answers of all processes, score them, write ``<benchmark>.json`` and return its content.

    Raises:
        InputError: There are no answers, or answers of another model or with other settings.
    """
    settings = settings_of(task, checkpoint, options)
    answers = merge_parts(
        options.output_dir / task.benchmark.name,
        task.questions,
        settings,
        overwrite=options.overwrite,
        num_chunks=options.num_chunks,
    )
    asked = subset(task.questions, options.limit)
    asked_keys = {question.key for question in asked}
    mine = [a for a in answers if options.limit is None or a.metadata.get("key") in asked_keys]
    return score_answers(task.benchmark, asked, mine, options.output_dir, settings, options.limit)


def score_answers(
    benchmark: Benchmark,
    questions: Sequence[Question],
    answers: Sequence[Answer],
    output_dir: Path,
    settings: dict[str, Any],
    limit: int | None = None,
) -> dict[str, Any]:
    """Score answers of this or another program, write ``<benchmark>.json`` and return its content."""
    matched = match_answers(questions, answers)
    result = benchmark.score(questions, matched.texts)
    output_dir.mkdir(parents=True, exist_ok=True)
    content = {
        "benchmark": benchmark.name,
        "column": benchmark.column,
        "score": result.value,
        "metrics": result.metrics,
        "answers": matched.report,
        "settings": settings,
        "limit": limit,
    }
    if benchmark.write_submission is not None:
        content["submission"] = benchmark.write_submission(questions, matched.texts, output_dir)
        logger.info("%s: submission: %s", benchmark.column, content["submission"])
    for name in ("missing", "empty", "duplicate", "unknown_id", "at_token_limit"):
        if matched.report[name]:
            logger.warning(
                "%s: %d answers are %s (%s)",
                benchmark.column,
                matched.report[name],
                name.replace("_", " "),
                ", ".join(matched.report["examples"][name]),
            )
    write_json(output_dir / f"{benchmark.name}.json", content)
    return content


def write_scores(output_dir: Path, checkpoint: Checkpoint) -> dict[str, float]:
    """Collect the scores of this checkpoint in ``scores.json``, with their mean ``avg`` if all six are there."""
    scores: dict[str, float] = {}
    for name in BENCHMARKS:
        path = output_dir / f"{name}.json"
        if not path.is_file():
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("settings", {}).get("weights") == checkpoint.fingerprint:
            scores[name] = content["score"]
    if len(scores) == len(BENCHMARKS):
        scores["avg"] = sum(scores.values()) / len(BENCHMARKS)
    write_json(output_dir / SCORES_FILE, scores)
    return scores
