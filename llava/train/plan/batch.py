"""Contents of a micro-batch: the longest one for memory, a typical one for time."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from llava.train.plan.arguments import PlanArguments
from llava.train.plan.method import Method

TEXT_PROMPT = 51
"""Prompt tokens besides the image: system prompt, question, role tags; 780 in total with SigLIP's 729."""

RESPONSE = 100
"""Supervised tokens per sample if the data is not available."""

TOKENS_A_WORD = 1.3
"""Tokens per English word, including its space and punctuation."""

ASKED = 2000
"""Number of data samples whose lengths are measured."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch of one GPU, with samples of about the same length.

    Attributes:
        samples: Number of samples; with ``--max_tokens_per_batch`` the mean number.
        tokens: Tokens per sample, including visual tokens.
        visual: Visual tokens per sample.
        response: Supervised tokens per sample.
        rows: Candidate rows per supervised token (TPA).
        padded: Whether some samples are shorter than the longest, so that attention has a mask.
    """

    samples: float
    tokens: float
    visual: float
    response: float
    rows: float = 0.0
    padded: bool = False

    @property
    def places(self) -> float:
        """Tokens of all samples."""
        return self.samples * self.tokens

    @property
    def supervised(self) -> float:
        """Supervised tokens of all samples."""
        return self.samples * self.response

    @property
    def pictures(self) -> float:
        """Visual tokens of all samples."""
        return self.samples * self.visual

    @property
    def candidates(self) -> float:
        """Candidates of all samples."""
        return self.supervised * self.rows


def longest_batch(arguments: PlanArguments, method: Method | None, visual: int) -> Batch:
    """The largest batch: samples of length ``--model_max_length``, some slightly shorter, all text supervised except a
    short prompt, and one candidate row for each draw. With ``--max_tokens_per_batch`` as few samples as fill it."""
    samples, length = arguments.per_device_train_batch_size, float(arguments.model_max_length)
    if arguments.max_tokens_per_batch:
        fill = max(length, arguments.max_tokens_per_batch)  # a longer sample is a micro-batch of its own
        samples = min(math.ceil(fill / length), samples * arguments.gradient_accumulation_steps)
        length = min(length, fill / samples)
    rows = 0.0
    if method is not None and method.candidates:
        rows = method.candidates if arguments.plan_candidate_rows is None else arguments.plan_candidate_rows
    return Batch(
        samples=samples,
        tokens=length,
        visual=min(visual, length),
        response=max(1, length - visual - TEXT_PROMPT),
        rows=rows,
        padded=samples > 1 and not (method is not None and method.packing),
    )


def usual_rows(arguments: PlanArguments, method: Method | None) -> float:
    """Mean number of candidate rows per supervised token over a run.

    With merging, 0.33, 0.56, 0.93 and 1.48 rows remained of 1, 2, 4 and 8 nucleus draws on the miniature, fitted by
    ``0.33 d^0.72``; of greedy draws, all but one remained (docs/results).
    """
    if method is None or not method.candidates:
        return 0.0
    if arguments.plan_candidate_rows is not None:
        return arguments.plan_candidate_rows
    if not method.merged:
        return float(method.candidates)
    return method.candidates - 1.0 if method.greedy else 0.33 * method.candidates**0.72


def usual_batch(
    arguments: PlanArguments, method: Method | None, visual: int, entries: Iterable[dict] | None = None
) -> Batch:
    """A batch with samples of the data's mean length, or of a typical length if the data is not available.

    Args:
        arguments: The run's flags.
        method: Method, for a distillation.
        visual: Visual tokens per image.
        entries: Some entries of the data, see ``Annotations``.
    """
    lengths = [_lengths(entry, visual, arguments.model_max_length) for entry in entries or ()]
    if not lengths:
        lengths = [_fitted(visual, TEXT_PROMPT, RESPONSE, arguments.model_max_length)]
    tokens, pictures, response = (sum(column) / len(lengths) for column in zip(*lengths, strict=True))
    samples: float = arguments.per_device_train_batch_size
    if arguments.max_tokens_per_batch:
        of_step = samples * arguments.gradient_accumulation_steps
        samples = of_step / math.ceil(of_step * tokens / arguments.max_tokens_per_batch)
    return Batch(samples, tokens, pictures, max(response, 1.0), usual_rows(arguments, method))


def _lengths(entry: dict, visual: int, longest: int) -> tuple[float, float, float]:
    """Tokens, visual tokens and supervised tokens of an entry, estimated from its words."""
    said = {"human": 0.0, "gpt": 0.0}
    for turn in entry["conversations"]:
        speaker = "gpt" if turn["from"] == "gpt" else "human"
        said[speaker] += TOKENS_A_WORD * len(turn["value"].split()) + 1
    return _fitted(visual * len(entry["image"]), said["human"], said["gpt"], longest)


def _fitted(visual: float, prompt: float, response: float, longest: int) -> tuple[float, float, float]:
    """Tokens, visual tokens and supervised tokens of a sample truncated at the end to the maximum length."""
    tokens = min(longest, visual + prompt + response)
    return tokens, min(visual, longest), max(0.0, min(response, tokens - visual - prompt))
