"""Evaluation during training: loss terms on held-out data, and benchmarks."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from transformers import PreTrainedTokenizerBase

from llava.conversation import Template, get_template
from llava.errors import InputError
from llava.eval.evaluate import Task
from llava.eval.records import chunk, subset
from llava.eval.registry import select
from llava.inference.checkpoint import LoadedModel
from llava.inference.generate import generate_answers
from llava.inference.question import Question
from llava.model.protocol import VisionLanguageModel, vision_tower_of

logger = logging.getLogger(__name__)


class HeldOutTerms:
    """Sums of the loss terms over a held-out set, so that means are over tokens (or samples), not over batches."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, torch.Tensor] = {}

    def add(self, terms: dict[str, torch.Tensor], counts: dict[str, torch.Tensor]) -> None:
        """Add one batch: this rank's shares of the terms, and the global denominators they were divided by."""
        for name, value in terms.items():
            share = value.detach().double() * counts[name].double()
            self.sums[name] = self.sums.get(name, torch.zeros_like(share)) + share
            self.counts[name] = self.counts.get(name, torch.zeros_like(share)) + counts[name].double()

    def means(self, accelerator: Accelerator, prefix: str) -> dict[str, float]:
        """The means over all ranks, by ``PREFIX_term``; resets the sums."""
        out = {}
        for name, value in self.sums.items():
            total = accelerator.reduce(value.float(), reduction="sum") if accelerator.num_processes > 1 else value
            out[f"{prefix}_{name}"] = (total / self.counts[name].clamp(min=1)).item()
        self.sums.clear()
        self.counts.clear()
        return out


class BenchmarkProbe:
    """Runs benchmarks during training.

    Args:
        names: Benchmarks separated by commas, or ``all``.
        root: Folder with a subfolder for each benchmark.
        limit: Number of questions per benchmark, evenly spread.
        batch_size: Questions per batch.

    Raises:
        InputError: A benchmark is unknown, or its files or images are missing; raised before training starts.
    """

    def __init__(self, names: str, root: str | Path, limit: int, batch_size: int) -> None:
        self.tasks = [Task.load(benchmark, Path(root)) for benchmark in select(names)]
        for task in self.tasks:
            task.check_pictures(limit)
        self.limit = limit
        self.batch_size = batch_size

    def scores(
        self, model: VisionLanguageModel, tokenizer: PreTrainedTokenizerBase, rank: int, ranks: int
    ) -> dict[str, float]:
        """The benchmarks' scores (0 to 100) by name. Every rank answers its share of the questions and gets all
        scores."""
        config = model.config
        loaded = LoadedModel(
            tokenizer, model, vision_tower_of(model).image_processor, config.tokenizer_model_max_length, "training"
        )
        template = get_template(loaded.template_name)
        training, cache = model.training, config.use_cache
        model.eval()
        config.use_cache = True
        try:
            return {task.benchmark.name: self._score(task, loaded, template, rank, ranks) for task in self.tasks}
        finally:
            model.train(training)
            config.use_cache = cache

    def _score(self, task: Task, loaded: LoadedModel, template: Template, rank: int, ranks: int) -> float:
        asked: Sequence[Question] = subset(task.questions, self.limit)
        said: list[tuple[str, str]] = []
        generate_answers(
            loaded,
            chunk(asked, ranks, rank),
            template if task.benchmark.conv_mode is None else get_template(task.benchmark.conv_mode),
            max_new_tokens=task.benchmark.max_new_tokens,
            batch_size=self.batch_size,
            on_answer=lambda question, text, finish: said.append((question.key, text)),
            description=task.benchmark.column,
        )
        answers = dict(gather_object(said) if ranks > 1 else said)
        return task.benchmark.score(asked, [answers.get(question.key) for question in asked]).value


def check_benchmarks(names: str, root: str) -> None:
    """Refuse benchmarks whose files are not there; this needs no model.

    Raises:
        InputError: An unknown benchmark, no folder of benchmarks, or one that lacks a file.
    """
    check_probe(names, root, zero3=False)
    for benchmark in select(names) if names else ():
        benchmark.find(Path(root))


def check_probe(names: str, root: str, zero3: bool) -> None:
    """Reject benchmark flags that cannot work.

    Raises:
        InputError: The benchmark folder is missing, or the model is sharded (ZeRO-3) and cannot generate on each rank
            separately.
    """
    if not names:
        return
    if not root:
        raise InputError(
            "--eval_benchmarks needs --eval_benchmark_root, the folder with a subfolder for each benchmark"
        )
    if zero3:
        raise InputError("--eval_benchmarks cannot run under ZeRO-3; use scripts/deepspeed/zero2.json, or leave it out")
