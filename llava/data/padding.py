"""Share of padding in the micro-batches, and balance of the ranks, for every order of samples; without a model.

    python -m llava.data.padding --data_path data/mix.json --model_name_or_path Qwen/Qwen2-0.5B --version qwen \\
        --visual_tokens 729 --batch 8 --accumulation 2 --ranks 8 --max_tokens_per_batch 8192
    python -m llava.data.padding --generated 200000

With ``--generated`` the lengths are drawn from ``MIX``: the sources of the 2.4 M mix with their published sizes, and
log-normal lengths of their texts whose medians are assumed, not counted.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llava.conversation import get_template
from llava.data.annotations.table import open_annotations
from llava.data.dataset import ConversationDataset
from llava.data.lengths import token_lengths
from llava.data.sampler import ModalityLengthSampler, ShuffleSampler
from llava.data.token_budget import Groups, TokenBudgetBatches
from llava.data.tokenize import load_tokenizer
from llava.errors import InputError, run_cli
from llava.files import write_json

Steps = Iterator[list[Groups]]
"""Samples by optimizer step, micro-batch and rank."""


class Source(NamedTuple):
    """A source of the generated mix.

    Attributes:
        thousands: Its samples, in thousands.
        text: Median tokens of a sample besides its image's.
        spread: Standard deviation of their logarithm.
        image: Whether a sample has an image.
    """

    thousands: float
    text: float
    spread: float
    image: bool = True


PROMPT = 45
"""Tokens of the system prompt and the role tags."""

MIX: Mapping[str, Source] = {
    "SBU captions": Source(844, 28, 0.35),
    "COCO captions": Source(592, 25, 0.25),
    "Visual Dialog, ten turns": Source(123, 170, 0.2),
    "IConQA": Source(107, 45, 0.4),
    "VIGC": Source(37, 130, 0.5),
    "TextVQA": Source(35, 70, 0.5),
    "VSR": Source(13, 25, 0.3),
    "ScienceQA": Source(13, 120, 0.6),
    "ShareGPT4V 665k: short questions of several turns": Source(365, 150, 0.6),
    "ShareGPT4V 665k: conversations": Source(160, 280, 0.4),
    "ShareGPT4V 665k: long descriptions": Source(100, 230, 0.25),
    "ShareGPT4V 665k: text only": Source(40, 900, 0.8, image=False),
}
"""2.4 million samples. The split of ShareGPT4V's 665,000 is approximate."""


@dataclass(frozen=True)
class Padding:
    """Figures of an order. Tokens include image tokens and, unless samples are packed, padding.

    Attributes:
        order: What it is.
        padding: Share of padding in all tokens, 0 to 1.
        micro_batches: Mean number of micro-batches per optimizer step on one rank.
        fullest: Tokens of the fullest micro-batch.
        at_once: Most tokens of a rank over the mean of all ranks, for micro-batches that run at the same time; a mean.
        by_step: The same for all micro-batches of a step together: where ranks wait for each other only at its end.
    """

    order: str
    padding: float
    micro_batches: float
    fullest: int
    at_once: float
    by_step: float


def generated_mix(samples: int, visual_tokens: int, longest: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw lengths from ``MIX``.

    Returns:
        Tokens of each sample, int ``[samples]``, and their signed text lengths, negative without an image.
    """
    rng = np.random.default_rng(seed)
    sources = list(MIX.values())
    share = np.array([source.thousands for source in sources])
    drawn = rng.choice(len(sources), size=samples, p=share / share.sum())
    text = np.array([source.text for source in sources])[drawn]
    text = text * np.exp(rng.standard_normal(samples) * np.array([source.spread for source in sources])[drawn])
    image = np.array([source.image for source in sources])[drawn]
    words = np.maximum(text.round(), 1).astype(np.int64)
    lengths = np.minimum(PROMPT + words + visual_tokens * image, longest)
    return lengths, np.where(image, words, -words)


def fixed_size(sampler: ShuffleSampler, batch: int, ranks: int, accumulation: int) -> Steps:
    """The full optimizer steps of micro-batches of ``batch`` samples each, of which the ranks take the next in turn."""
    order = sampler.order()
    size = batch * ranks * accumulation
    for step in order[: len(order) // size * size].reshape(-1, accumulation, ranks, batch):
        yield step.tolist()


def measure(order: str, steps: Steps, lengths: np.ndarray, padded: bool) -> Padding:
    """The figures of an order of samples."""
    real, places, fullest = 0, 0, 0
    at_once: list[float] = []
    by_step: list[float] = []
    for step in steps:
        tokens = np.array([[lengths[group].sum() if group else 0 for group in row] for row in step])
        real += int(tokens.sum())
        if padded:
            tokens = np.array([[lengths[group].max() * len(group) if group else 0 for group in row] for row in step])
        places += int(tokens.sum())
        fullest = max(fullest, int(tokens.max()))
        at_once += (tokens.max(1) / tokens.mean(1)).tolist()
        by_step.append(tokens.sum(0).max() / tokens.sum(0).mean())
    return Padding(
        order, 1 - real / places, len(at_once) / len(by_step), fullest, float(np.mean(at_once)), float(np.mean(by_step))
    )


def compare(
    lengths: np.ndarray, signed: np.ndarray, batch: int, accumulation: int, ranks: int, budget: int, seed: int = 0
) -> list[Padding]:
    """The figures of fixed-size and filled micro-batches, in random order and grouped by modality and length.

    Args:
        lengths: Tokens of every sample.
        signed: Signed lengths, see ``ModalityLengthSampler``.
        batch: Samples of a fixed-size micro-batch.
        accumulation, ranks: Micro-batches of an optimizer step, and ranks.
        budget: Most tokens of a filled micro-batch.
        seed: Random seed of the orders.
    """
    size = batch * accumulation * ranks
    if len(lengths) < size:
        raise InputError(
            f"the data have {len(lengths)} samples, an optimizer step takes {size}: lower --batch or --ranks"
        )
    found = []
    for name, sampler in (
        ("random", ShuffleSampler(len(lengths), seed)),
        ("grouped", ModalityLengthSampler(signed, batch, accumulation * ranks, seed)),
    ):

        def filled(padded: bool, sampler: ShuffleSampler = sampler) -> Steps:
            batches = TokenBudgetBatches(
                sampler, lengths, size, ranks, accumulation, budget=budget, padded=padded, drop_last=True
            )
            return batches.steps()

        def fixed(sampler: ShuffleSampler = sampler) -> Steps:
            return fixed_size(sampler, batch, ranks, accumulation)

        found += [
            measure(f"{name}, {batch} samples, padded", fixed(), lengths, True),
            measure(f"{name}, {batch} samples, packed", fixed(), lengths, False),
            measure(f"{name}, {budget} tokens, padded", filled(True), lengths, True),
            measure(f"{name}, {budget} tokens, packed", filled(False), lengths, False),
        ]
    return found


def report(found: list[Padding]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| order, micro-batch | padding | micro-batches a step | fullest, tokens | ranks at once, max/mean | ranks by "
        "step, max/mean |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row.order} | {row.padding:.1%} | {row.micro_batches:.2f} | {row.fullest:,} | {row.at_once:.3f} | "
        f"{row.by_step:.3f} |"
        for row in found
    ]
    return "\n".join(lines)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data_path", help="LLaVA-format JSON or JSONL")
    parser.add_argument("--model_name_or_path", help="folder or hub name with the tokenizer, for --data_path")
    parser.add_argument("--version", default="qwen", help="prompt template")
    parser.add_argument("--generated", type=int, default=0, help="draw this many lengths instead of reading data")
    parser.add_argument("--visual_tokens", type=int, default=729, help="tokens of an image")
    parser.add_argument("--model_max_length", type=int, default=2048, help="longest sample, in tokens")
    parser.add_argument("--batch", type=int, default=8, help="samples of a fixed-size micro-batch")
    parser.add_argument("--accumulation", type=int, default=2, help="micro-batches of a step with the fixed size")
    parser.add_argument("--ranks", type=int, default=8, help="GPUs")
    parser.add_argument("--max_tokens_per_batch", type=int, default=8192, help="tokens of a filled micro-batch")
    parser.add_argument("--seed", type=int, default=0, help="random seed of orders and generated lengths")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    if arguments.generated:
        lengths, signed = generated_mix(
            arguments.generated, arguments.visual_tokens, arguments.model_max_length, arguments.seed
        )
    elif arguments.data_path and arguments.model_name_or_path:
        dataset = ConversationDataset(
            open_annotations(arguments.data_path),
            load_tokenizer(arguments.model_name_or_path, arguments.model_max_length),
            get_template(arguments.version),
            model_max_length=arguments.model_max_length,
            visual_tokens=arguments.visual_tokens,
            on_bad_sample="skip",
            tower_later=True,
        )
        lengths, signed = token_lengths(dataset), dataset.lengths
    else:
        raise InputError("give --data_path and --model_name_or_path, or --generated NUMBER")
    found = compare(
        lengths,
        signed,
        arguments.batch,
        arguments.accumulation,
        arguments.ranks,
        arguments.max_tokens_per_batch,
        arguments.seed,
    )
    median, high = np.quantile(lengths, (0.5, 0.95))
    print(
        f"{len(lengths):,} samples, {median:.0f} tokens in the median, 95% below {high:.0f}; {arguments.ranks} ranks\n"
    )
    print(report(found))
    if arguments.json:
        write_json(arguments.json, [asdict(row) for row in found], indent=2)


if __name__ == "__main__":
    run_cli(main)
