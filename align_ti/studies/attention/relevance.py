"""IRS by layer, and how many pairs of inputs it takes (the paper, Fig. 4 and appendix B.5).

    python -m align_ti.studies.attention.relevance --model NAME=CHECKPOINT ... --data FILE --image-folder DIR \\
        --out results

The score (Eq. 3) is an expectation over pairs of inputs. The paper estimates it from 1,000 pairs and calls it stable
with fewer. Here each number of pairs is drawn several times from the same inputs and compared with all pairs.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.nn.functional import normalize

from align_ti.attention.interface import use_align_ti_attention
from align_ti.irs import choose_layer, collect_vectors, irs
from align_ti.studies.common.checkpoints import data_batches, parse_named
from align_ti.studies.common.provenance import run_facts
from align_ti.studies.common.report import markdown_page, markdown_table, write_report
from llava.console import setup_console
from llava.data.annotations.table import open_annotations
from llava.errors import InputError, run_cli
from llava.flags import add_device_flags
from llava.inference.checkpoint import load

PAIRS = (10, 30, 100, 300, 1000)
EXPLANATION = (
    "IRS of a layer: 1 - mean cosine similarity of its instruction-to-vision attention over pairs of different inputs "
    "(Eq. 3). Ranges go from the lowest to the highest of several draws of that many pairs from the same inputs; l* is "
    "the layer with the highest score. The last column is the share of draws that choose the same layer as all pairs."
)


def irs_of_all_pairs(vectors: Tensor) -> Tensor:
    """Eq. 3 over every pair of two different inputs: ``[inputs, layers, N_v]`` -> ``[layers]``, float64.

    The sum over all pairs of unit vectors is ``|sum u|^2 - n``, so the pairs need not be enumerated.
    """
    unit = normalize(vectors.double(), dim=-1)
    inputs = len(unit)
    return 1 - (unit.sum(0).square().sum(-1) - unit.square().sum((0, 2))) / (inputs * (inputs - 1))


def convergence(vectors: Tensor, pairs: Sequence[int] = PAIRS, draws: int = 20, seed: int = 0) -> Tensor:
    """IRS of every layer for several numbers of pairs, each drawn several times.

    Args:
        vectors: ``[inputs, layers, N_v]`` from ``align_ti.irs.collect_vectors``.
        pairs: Numbers of pairs.
        draws: Number of draws for each number of pairs.
        seed: Random seed of all draws.

    Returns:
        ``[len(pairs), draws, layers]``.

    Raises:
        InputError: ``draws`` below 1, or an input that ``irs`` rejects.
    """
    if draws < 1:
        raise InputError(f"--draws is {draws}; at least one is needed")
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.stack([irs(vectors, number, generator) for _ in range(draws)]) for number in pairs])


def summarise(vectors: Tensor, pairs: Sequence[int], draws: int, seed: int) -> dict[str, Any]:
    """Everything reported about a model: mean and range of the draws, by number of pairs and layer."""
    exact = irs_of_all_pairs(vectors)
    scores = convergence(vectors, pairs, draws, seed)
    best = choose_layer(exact)
    return {
        "inputs": len(vectors),
        "layer": best,
        "all_pairs": _rounded(exact),
        "draws": [
            {
                "pairs": number,
                "mean": _rounded(of_number.mean(0)),
                "low": _rounded(of_number.amin(0)),
                "high": _rounded(of_number.amax(0)),
                "same_layer": sum(choose_layer(draw) == best for draw in of_number) / draws,
            }
            for number, of_number in zip(pairs, scores, strict=True)
        ],
    }


def as_markdown(models: Mapping[str, Mapping[str, Any]], facts: Mapping[str, str]) -> str:
    """The selected layer of each model and its score, by number of pairs."""
    rows = []
    for name, of_model in models.items():
        layer = of_model["layer"]
        for draw in of_model["draws"]:
            score = f"{draw['mean'][layer]:.3f} [{draw['low'][layer]:.3f}, {draw['high'][layer]:.3f}]"
            rows.append([name, str(draw["pairs"]), str(layer), score, f"{100 * draw['same_layer']:.0f}%"])
        rows.append(
            [name, f"all of {of_model['inputs']} inputs", str(layer), f"{of_model['all_pairs'][layer]:.3f}", ""]
        )
    table = markdown_table(["model", "pairs", "l*", "IRS of l* [range]", "draws that choose l*"], rows)
    return markdown_page("Instruction-Relevance Score by layer", [table, EXPLANATION], facts)


def draw_scores(models: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Left: IRS by layer, with the most pairs (Fig. 4). Right: IRS of ``l*`` by number of pairs. One colour per
    model."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    layers, pairs = figure.subplots(1, 2)
    for number, (name, of_model) in enumerate(models.items()):
        colour = f"C{number}"
        last, best = of_model["draws"][-1], of_model["layer"]
        index = range(len(last["mean"]))
        layers.plot(index, last["mean"], color=colour, marker=".", label=f"{name}, highest in layer {best}")
        layers.fill_between(index, last["low"], last["high"], color=colour, alpha=0.2, linewidth=0)
        layers.plot(best, last["mean"][best], color=colour, marker="*", markersize=12)
        numbers = [draw["pairs"] for draw in of_model["draws"]]
        mean, low, high = ([draw[key][best] for draw in of_model["draws"]] for key in ("mean", "low", "high"))
        pairs.plot(numbers, mean, color=colour, marker=".", label=f"{name}, layer {best}")
        pairs.fill_between(numbers, low, high, color=colour, alpha=0.2, linewidth=0)
        pairs.axhline(of_model["all_pairs"][best], color=colour, linestyle="--", linewidth=0.8)
    layers.set(xlabel="layer", ylabel="IRS", title=f"{last['pairs']} pairs")
    layers.xaxis.set_major_locator(MaxNLocator(integer=True))
    pairs.set(xlabel="pairs of inputs", ylabel="IRS of l*", xscale="log", title="Convergence (dashed: all pairs)")
    for axes in (layers, pairs):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def _rounded(scores: Tensor) -> list[float]:
    return [round(score, 6) for score in scores.tolist()]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", action="append", required=True, metavar="NAME=CHECKPOINT")
    parser.add_argument("--data", required=True, help="annotation file")
    parser.add_argument(
        "--image-folder", type=Path, help="folder that image paths are relative to; default: the data's folder"
    )
    parser.add_argument(
        "--inputs", type=int, default=500, help="number of conversations with one image, drawn at random"
    )
    parser.add_argument("--pairs", type=int, nargs="+", default=PAIRS, help="numbers of pairs")
    parser.add_argument("--draws", type=int, default=20, help="draws for each number of pairs")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="random seed of the inputs and of the pairs")
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument("--name", default="relevance", help="name of the output files")
    add_device_flags(parser)
    arguments = parser.parse_args()
    setup_console(times=False)
    paths = parse_named(arguments.model, "--model")
    pairs = sorted(set(arguments.pairs))
    if arguments.inputs < 2 or pairs[0] < 1 or arguments.draws < 1:
        raise InputError(
            f"--inputs {arguments.inputs}, --pairs {arguments.pairs}, --draws {arguments.draws}: at least 2 inputs, "
            "1 pair and 1 draw are needed"
        )
    annotations = open_annotations(arguments.data)
    results = {}
    for name, path in paths.items():
        loaded = load(path, device=arguments.device, dtype=arguments.dtype)
        use_align_ti_attention(loaded.model)
        read = data_batches(
            loaded.model,
            loaded.tokenizer,
            loaded.template_name,
            annotations,
            arguments.image_folder,
            arguments.batch_size,
            arguments.seed,
        )
        vectors = collect_vectors(loaded.model, read, arguments.inputs)
        results[name] = summarise(vectors, pairs, arguments.draws, arguments.seed)
    facts = run_facts("align_ti.studies.attention.relevance") | {"draws": str(arguments.draws)}
    text = as_markdown(results, facts)
    write_report(arguments.out, arguments.name, {**facts, "models": results}, text, draw_scores(results))


if __name__ == "__main__":
    run_cli(main)
