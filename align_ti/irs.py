"""Instruction-Relevance Score (the paper, Eq. 3 and appendix B.5): which layer attends as the instruction says.

``IRS(l) = 1 - E[cos(a_l(x1), a_l(x2))]`` over pairs of inputs, where ``a_l(x)`` is the layer's mean
attention from instruction to visual tokens. IVA uses the layer with the highest score.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from align_ti.attention.interface import AttentionCapture, require_align_ti_attention
from align_ti.attention.maps import MapRequest
from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import InputError
from llava.files import write_json
from llava.model.protocol import VisionLanguageModel

logger = logging.getLogger(__name__)

PAIRS = 1000


@dataclass(frozen=True)
class LayerScores:
    """IRS of every layer, the chosen layer, and the numbers of inputs and pairs."""

    scores: list[float]
    layer: int
    pairs: int
    inputs: int

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        write_json(Path(path), asdict(self), indent=2)

    @classmethod
    def load(cls, path: str | Path) -> "LayerScores":
        """Read what ``save`` wrote.

        Raises:
            InputError: The file is missing or has another format.
        """
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path} is not a file of layer scores ({error}); compute them again") from error


def irs(vectors: Tensor, pairs: int = PAIRS, generator: torch.Generator | None = None) -> Tensor:
    """Eq. 3 for every layer, over random pairs of two different inputs, drawn independently.

    Args:
        vectors: ``[inputs, layers, N_v]``, mean attention of each input and layer to its visual tokens.
        pairs: Number of pairs; the same pairs serve all layers.
        generator: Random generator on the CPU.

    Returns:
        ``[layers]``, between 0 (the same for all inputs) and 1, since attention is never negative.

    Raises:
        InputError: There are fewer than two inputs, or ``pairs < 1``.
    """
    inputs = len(vectors)
    if inputs < 2 or pairs < 1:
        raise InputError(f"IRS needs at least 2 inputs and 1 pair of them, got {inputs} and {pairs}")
    first = torch.randint(inputs, (pairs,), generator=generator)
    other = (first + torch.randint(1, inputs, (pairs,), generator=generator)) % inputs
    unit = normalize(vectors, dim=-1)
    total = torch.zeros(unit.shape[1], dtype=unit.dtype)
    for one, two in zip(first.tolist(), other.tolist(), strict=True):
        total += (unit[one] * unit[two]).sum(-1)
    return 1 - total / pairs


def choose_layer(scores: Tensor) -> int:
    """``l*``: the layer with the highest score; the lowest such layer in a tie."""
    return int(scores.argmax())


@torch.no_grad()
def layer_vectors(model: VisionLanguageModel, batch: Mapping[str, Any]) -> Tensor:
    """Mean instruction-to-vision attention in every layer, from one forward pass over a batch.

    Args:
        model: A LLaVA model with the ``align_ti`` attention.
        batch: Batch of the collator (``input_ids``, ``attention_mask``, ``labels``,
            ``instruction_mask``, ``images``).

    Returns:
        ``[n, layers, N_v]`` on the CPU, in float32, for the samples with exactly one image and at least
        one instruction token.
    """
    require_align_ti_attention(model.model)
    layers = model.config.num_hidden_layers
    names = ("input_ids", "attention_mask", "labels", "instruction_mask", "images")
    moved = {name: batch[name].to(model.device) for name in names if batch.get(name) is not None}
    if "images" in moved:
        moved["images"] = moved["images"].to(model.dtype)
    suitable = ((moved["input_ids"] == IMAGE_TOKEN_INDEX).sum(1) == 1) & moved["instruction_mask"].any(1)
    if not suitable.any():
        return torch.empty(0, layers, 0)
    spliced = model.splice_inputs(**moved)
    request = MapRequest(frozenset(range(layers)), spliced.instruction_mask, spliced.attention_mask)
    capture = AttentionCapture(maps=request)
    model.model(
        inputs_embeds=spliced.inputs_embeds,
        attention_mask=spliced.attention_mask,
        position_ids=spliced.position_ids,
        use_cache=False,
        capture=capture,
    )
    # A sample cut to the length limit can have lost visual tokens: keep those that hold them all.
    suitable &= spliced.instruction_mask.any(1)
    counts = spliced.visual_mask.sum(1)
    suitable &= counts == counts[suitable].max() if suitable.any() else suitable
    kept = suitable.nonzero().flatten().tolist()
    maps = torch.stack([capture.maps[layer] for layer in range(layers)], dim=1)
    vectors = [maps[sample][:, spliced.visual_mask[sample]] for sample in kept]
    return torch.stack(vectors).float().cpu() if vectors else torch.empty(0, layers, 0)


def collect_vectors(
    model: VisionLanguageModel,
    batches: Iterable[Mapping[str, Any]],
    max_inputs: int | None = None,
    progress: bool = True,
) -> Tensor:
    """:func:`layer_vectors` over several batches.

    Args:
        model: A LLaVA model with the ``align_ti`` attention, in evaluation mode.
        batches: Batches of the collator; samples with no image, several images or no instruction are skipped.
        max_inputs: Maximum number of suitable inputs.
        progress: Whether to show a progress bar.

    Returns:
        ``[inputs, layers, N_v]`` on the CPU, in float32.

    Raises:
        InputError: There are fewer than two suitable inputs, or their numbers of visual tokens differ.
    """
    found: list[Tensor] = []
    count = 0
    with tqdm(total=max_inputs, desc="IRS", unit="input", disable=None if progress else True) as bar:
        for batch in batches:
            vectors = layer_vectors(model, batch)
            if not len(vectors):
                continue
            if found and vectors.shape[-1] != found[0].shape[-1]:
                sizes = f"{found[0].shape[-1]} and {vectors.shape[-1]}"
                raise InputError(f"inputs have {sizes} visual tokens; raise model_max_length so none is cut")
            found.append(vectors)
            count += len(vectors)
            bar.update(len(vectors))
            if max_inputs is not None and count >= max_inputs:
                break
    if count < 2:
        raise InputError(f"IRS found {count} inputs with one image and an instruction; it needs 2 at least")
    return torch.cat(found)[:max_inputs]


def instruction_relevance_scores(
    model: VisionLanguageModel,
    batches: Iterable[Mapping[str, Any]],
    *,
    pairs: int = PAIRS,
    max_inputs: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> LayerScores:
    """Score all layers of a teacher on real inputs and choose ``l*``.

    Args:
        model, batches, max_inputs, progress: See ``collect_vectors``.
        pairs: Number of pairs of inputs (the paper: 1,000).
        seed: Random seed of the pairs.

    Raises:
        InputError: See ``collect_vectors``.
    """
    vectors = collect_vectors(model, batches, max_inputs, progress)
    scores = irs(vectors, pairs, torch.Generator().manual_seed(seed))
    chosen = choose_layer(scores)
    logger.info("IRS over %d inputs and %d pairs: layer %d (%.3f)", len(vectors), pairs, chosen, scores[chosen])
    return LayerScores([round(score, 6) for score in scores.tolist()], chosen, pairs, len(vectors))
