"""What a micro-batch holds: the longest for memory, the usual one for time."""

from collections.abc import Iterable
from dataclasses import dataclass

from llava.train.plan.arguments import PlanArguments
from llava.train.plan.method import Method

TEXT_PROMPT = 51
"""Tokens of a prompt beside the picture's: system prompt, question, role tags; 780 in all with SigLIP's 729."""

RESPONSE = 100
"""Supervised tokens of a sample where the data cannot be asked."""

TOKENS_A_WORD = 1.3
"""Tokens of an English word, its space and punctuation included."""

ASKED = 2000
"""Samples of the data whose lengths are looked at."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch of one GPU, all samples about alike.

    Attributes:
        samples: Number of samples.
        tokens: Tokens of a sample, visual ones included.
        visual: Visual tokens of a sample.
        response: Supervised tokens of a sample.
        rows: Candidates that run at each supervised token (TPA).
        padded: Whether some samples are a little shorter: attention then has a mask.
    """

    samples: int
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
    """Samples as long as ``--model_max_length`` allows, some a little shorter, all of the text but a short prompt
    supervised, and as many candidates as there can be: one for each draw."""
    length = arguments.model_max_length
    rows = 0.0
    if method is not None and method.candidates:
        rows = method.candidates if arguments.plan_candidate_rows is None else arguments.plan_candidate_rows
    return Batch(
        samples=arguments.per_device_train_batch_size,
        tokens=length,
        visual=min(visual, length),
        response=max(1, length - visual - TEXT_PROMPT),
        rows=rows,
        padded=arguments.per_device_train_batch_size > 1 and not (method is not None and method.packing),
    )


def usual_rows(arguments: PlanArguments, method: Method | None) -> float:
    """Candidates at a supervised token in the mean over a run.

    With merging, 0.33, 0.56, 0.93 and 1.48 were left of 1, 2, 4 and 8 nucleus draws on the miniature, which
    ``0.33 d^0.72`` follows, and all but one of greedy draws (docs/results).
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
    """Samples of the data's mean length, or of a usual one where the data cannot be asked.

    Args:
        arguments: The run's flags.
        method: Of a distillation.
        visual: Visual tokens of a picture.
        entries: Some entries of the data, see ``Annotations``.
    """
    lengths = [_lengths(entry, visual, arguments.model_max_length) for entry in entries or ()]
    if not lengths:
        lengths = [_fitted(visual, TEXT_PROMPT, RESPONSE, arguments.model_max_length)]
    tokens, pictures, response = (sum(column) / len(lengths) for column in zip(*lengths, strict=True))
    return Batch(
        arguments.per_device_train_batch_size, tokens, pictures, max(response, 1.0), usual_rows(arguments, method)
    )


def _lengths(entry: dict, visual: int, longest: int) -> tuple[float, float, float]:
    """Tokens, visual tokens and supervised tokens of an entry, by its words."""
    said = {"human": 0.0, "gpt": 0.0}
    for turn in entry["conversations"]:
        speaker = "gpt" if turn["from"] == "gpt" else "human"
        said[speaker] += TOKENS_A_WORD * len(turn["value"].split()) + 1
    return _fitted(visual * len(entry["image"]), said["human"], said["gpt"], longest)


def _fitted(visual: float, prompt: float, response: float, longest: int) -> tuple[float, float, float]:
    """Tokens, visual tokens and supervised tokens of a sample cut to its longest length, from the end."""
    tokens = min(longest, visual + prompt + response)
    return tokens, min(visual, longest), max(0.0, min(response, tokens - visual - prompt))
