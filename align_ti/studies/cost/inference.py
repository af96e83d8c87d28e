"""Cost of inference: model size, memory, time to the first token and tokens per second (the paper, Table 17).

    python -m align_ti.studies.cost.inference --model NAME=CHECKPOINT ... --image F.png --question "What is this?" \\
        --out results

Every model answers one question about one image with exactly ``--new-tokens`` tokens, at batch size 1. The time to the
first token includes the vision tower, but not reading and resizing the image. The models take turns, so that noise of
the machine affects all of them equally. Medians over the rounds are reported.
"""

import argparse
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from align_ti.studies.common.checkpoints import parse_named
from align_ti.studies.common.measure import peak_memory, seconds
from align_ti.studies.common.provenance import run_facts
from align_ti.studies.common.report import markdown_page, markdown_table, write_report
from llava.conversation import get_template
from llava.data.images import load_image
from llava.errors import InputError, run_cli
from llava.eval.table import read_rows
from llava.flags import add_device_flags
from llava.inference.checkpoint import LoadedModel, load
from llava.inference.generate import prompt_text
from llava.inference.greedy import GREEDY
from llava.inference.question import Picture, Question
from llava.mm_utils import process_images, tokenizer_image_token
from llava.model.protocol import vision_tower_of

EXPLANATION = (
    "Parameters and weights count the tower, the projector and the language model, with shared weights once. Peak "
    "memory is measured while a whole answer is generated and includes the weights: allocated memory on a GPU, all "
    "live tensors on a CPU. Tokens per second do not count the first token. Medians over the rounds."
)


@dataclass(frozen=True)
class Cost:
    """Inference cost of one model.

    Attributes:
        parameters: Number of parameters of tower, projector and language model; shared ones count once.
        weight_bytes: Size of these parameters in bytes.
        peak_bytes: Peak memory while an answer is generated, including the weights, in bytes.
        first_token_seconds: Median time from pixels and ids to the first token.
        tokens_per_second: Median rate of the tokens after the first.
        prompt_tokens: Number of positions of the prompt, including visual tokens.
        average: Mean score over the six benchmarks; None if no scores were given.
        rounds: ``(seconds to the first token, seconds to the last)`` of every round.
    """

    parameters: int
    weight_bytes: int
    peak_bytes: int
    first_token_seconds: float
    tokens_per_second: float
    prompt_tokens: int
    average: float | None
    rounds: list[tuple[float, float]]


def weight_size(model: nn.Module) -> tuple[int, int]:
    """Number of parameters and their size in bytes; tied parameters count once."""
    parameters = list(model.parameters())  # a tied parameter is one object
    return sum(weight.numel() for weight in parameters), sum(weight.nbytes for weight in parameters)


def answerer(
    loaded: LoadedModel, template: str, image: Image.Image, question: str
) -> tuple[Callable[[int], Tensor], int]:
    """A function that generates an answer of a given number of tokens, and the number of positions of its prompt.

    Args:
        loaded: The model, its tokenizer and its image processor.
        template: Name of the prompt template.
        image: An RGB image.
        question: The human turn, without ``<image>``.

    Returns:
        A function from a number of tokens to greedy ids ``[1, tokens]`` without an end of turn, and the number of
        positions.
    """
    model = loaded.model
    home = model.get_input_embeddings().weight
    asked = Question("0", question, Picture("picture"))
    text = prompt_text(asked, get_template(template), model.config)
    ids = tokenizer_image_token(text, loaded.tokenizer, return_tensors="pt")
    assert isinstance(ids, Tensor)
    ids = ids[None].to(home.device)
    pixels = process_images([image], loaded.image_processor, model.config).to(home.device, home.dtype)
    ends = model.generation_config.eos_token_id

    def answer(tokens: int) -> Tensor:
        return model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            images=pixels,
            **GREEDY,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            eos_token_id=ends if ends is not None else loaded.tokenizer.eos_token_id,
            pad_token_id=loaded.tokenizer.pad_token_id,
        )

    return answer, ids.shape[1] + vision_tower_of(model).num_patches - 1


def peak_bytes(run: Callable[[], Any], model: nn.Module, weight_bytes: int, device: torch.device) -> int:
    """Peak memory in bytes of one model and its run, without other models on the same device."""
    if device.type != "cuda":
        return peak_memory(run, (model,), device)
    before = torch.cuda.memory_allocated(device)
    return peak_memory(run, (model,), device) - before + weight_bytes


def measure(
    models: Mapping[str, LoadedModel],
    templates: Mapping[str, str],
    image: Image.Image,
    question: str,
    *,
    new_tokens: int,
    rounds: int,
    averages: Mapping[str, float | None],
) -> dict[str, Cost]:
    """Costs of all models, measured in turn.

    Args:
        models: Models by name, all on one device.
        templates: Names of their prompt templates, by model name.
        image: An RGB image.
        question: The question, without ``<image>``.
        new_tokens: Number of tokens of an answer, at least 2.
        rounds: Number of timed answers, after an untimed one.
        averages: Mean benchmark scores by model name, shown next to the costs.

    Raises:
        InputError: ``new_tokens`` is below 2, or ``rounds`` below 1.
    """
    if new_tokens < 2 or rounds < 1:
        raise InputError(f"--new-tokens {new_tokens}, --rounds {rounds}: expected at least 2 tokens and 1 round")
    answers = {name: answerer(model, templates[name], image, question) for name, model in models.items()}
    device = next(iter(models.values())).model.get_input_embeddings().weight.device
    runs: dict[str, Callable[[], Any]] = {}
    for name, (answer, _) in answers.items():
        runs[f"{name} first"] = partial(answer, 1)
        runs[f"{name} whole"] = partial(answer, new_tokens)
    taken = seconds(runs, rounds, device)
    costs = {}
    for name, (_, prompt) in answers.items():
        model = models[name].model
        assert isinstance(model, nn.Module)
        parameters, weights = weight_size(model)
        pairs = list(zip(taken[f"{name} first"], taken[f"{name} whole"], strict=True))
        costs[name] = Cost(
            parameters=parameters,
            weight_bytes=weights,
            peak_bytes=peak_bytes(runs[f"{name} whole"], model, weights, device),
            first_token_seconds=statistics.median(first for first, _ in pairs),
            tokens_per_second=tokens_per_second(pairs, new_tokens),
            prompt_tokens=prompt,
            average=averages.get(name),
            rounds=pairs,
        )
    return costs


def tokens_per_second(rounds: list[tuple[float, float]], new_tokens: int) -> float:
    """Number of tokens after the first, divided by the difference of the median times to the last and the first token.

    The difference is taken between medians because in a single round of a small model noise can exceed it.

    Raises:
        InputError: The median time of a whole answer is not longer than that of its first token.
    """
    first, whole = (statistics.median(times) for times in zip(*rounds, strict=True))
    if whole <= first:
        raise InputError(
            f"{new_tokens} tokens took {whole:.4f} s and the first token alone {first:.4f} s; the machine is too noisy "
            "for so few tokens: raise --new-tokens or --rounds"
        )
    return (new_tokens - 1) / (whole - first)


def as_markdown(costs: Mapping[str, Cost], facts: Mapping[str, str]) -> str:
    """Table 17, one row per model."""
    headings = ["model", "parameters", "weights, MiB", "peak memory, MiB", "first token, ms", "tokens/s", "Avg"]
    rows = [
        [
            name,
            readable(cost.parameters),
            f"{cost.weight_bytes / 2**20:.1f}",
            f"{cost.peak_bytes / 2**20:.1f}",
            f"{1000 * cost.first_token_seconds:.1f}",
            f"{cost.tokens_per_second:.1f}",
            "-" if cost.average is None else f"{cost.average:.1f}",
        ]
        for name, cost in costs.items()
    ]
    return markdown_page("Inference cost", [markdown_table(headings, rows), EXPLANATION], facts)


def readable(number: int) -> str:
    """A count with a unit, such as 0.50 B, 3.60 M or 812."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--model", action="append", required=True, metavar="NAME=CHECKPOINT", help="a model; may be given several times"
    )
    parser.add_argument("--image", type=Path, required=True, help="image file")
    parser.add_argument("--question", required=True, help="question about the image")
    parser.add_argument("--new-tokens", type=int, default=128, help="tokens per answer")
    parser.add_argument("--rounds", type=int, default=5, help="timed answers per model")
    parser.add_argument(
        "--scores", action="append", default=[], metavar="NAME=FOLDER", help="a model's scores, of llava.eval.run"
    )
    parser.add_argument("--out", type=Path, required=True, help="output folder of the results")
    parser.add_argument("--name", default="inference_cost", help="name of the result files, without ending")
    add_device_flags(parser)
    arguments = parser.parse_args()
    paths, scores = parse_named(arguments.model, "--model"), parse_named(arguments.scores, "--scores")
    unknown = sorted(set(scores) - set(paths))
    if unknown:
        raise InputError(f"--scores names {', '.join(unknown)}, but the models are {', '.join(paths)}")
    averages = {name: read_rows(folder)[0].average for name, folder in scores.items()}
    image = load_image(arguments.image)
    models = {name: load(path, device=arguments.device, dtype=arguments.dtype) for name, path in paths.items()}
    costs = measure(
        models,
        {name: model.template_name for name, model in models.items()},
        image,
        arguments.question,
        new_tokens=arguments.new_tokens,
        rounds=arguments.rounds,
        averages=averages,
    )
    home = next(iter(models.values())).model.get_input_embeddings().weight
    facts = {
        **run_facts("align_ti.studies.cost.inference"),
        "device": torch.cuda.get_device_name(home.device)
        if home.is_cuda
        else f"CPU, {torch.get_num_threads()} threads",
        "dtype": str(home.dtype).removeprefix("torch."),
        "tokens": f"{arguments.new_tokens} new tokens after prompts of "
        + ", ".join(str(cost.prompt_tokens) for cost in costs.values()),
        "rounds": str(arguments.rounds),
    }
    content = {**facts, "models": {name: asdict(cost) for name, cost in costs.items()}}
    write_report(arguments.out, arguments.name, content, as_markdown(costs, facts))


if __name__ == "__main__":
    run_cli(main)
