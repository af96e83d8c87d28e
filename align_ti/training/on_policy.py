"""On-policy data (GKD, Agarwal et al. 2024, arXiv 2306.13649, Algorithm 1): the student's own responses.

With probability ``fraction``, all samples of an optimizer step are answered by the student, and the losses are computed
on its answers instead of the data's. The **last** assistant turn is replaced by a response sampled from the student
given everything before it; text after it is kept. Earlier turns become context, so such a step compares the models only
on the student's own tokens. The cross-entropy (``sft``) is about the data's answers and is not computed in these steps.

Whether a step is on-policy depends on the seed and the step; a sample's draws depend on these and its index in the
dataset. All ranks therefore agree, and neither resuming nor another split into micro-batches changes a response.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import LogitsProcessor, LogitsProcessorList

from align_ti.candidates.noise import SampleNoise, step_noise
from align_ti.candidates.sampling import draw
from align_ti.losses.batch import ON_POLICY
from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import InputError
from llava.inference.end_of_turn import EndOfTurn
from llava.inference.greedy import GREEDY
from llava.model.protocol import VisionLanguageModel


@dataclass(frozen=True)
class OnPolicySettings:
    """How often and how responses are sampled from the student.

    Attributes:
        fraction: GKD's lambda, the probability that a step is on-policy, in [0, 1].
        temperature: Sampling temperature, above 0.
        max_new_tokens: Maximum length of a response in tokens.
        seed: Random seed of the run.

    Raises:
        InputError: A number is out of range.
    """

    fraction: float = 0.0
    temperature: float = 1.0
    max_new_tokens: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise InputError(f"--on_policy_fraction is {self.fraction}; expected a probability, 0 to 1")
        if not 0 < self.temperature < math.inf:
            raise InputError(f"--on_policy_temperature is {self.temperature}; expected a positive number")
        if self.max_new_tokens < 1:
            raise InputError(f"--on_policy_max_new_tokens is {self.max_new_tokens}; expected at least 1")

    def chosen(self, step: int) -> bool:
        """Whether the optimizer step with this number trains on the student's responses; the same on all ranks."""
        return step_noise(self.seed, step, b"on-policy step") < self.fraction


@dataclass(frozen=True)
class LastTurn:
    """The last assistant turn of each sample, as columns of its batch ``[B, T]``; tensors are bool ``[B, T]``.

    Attributes:
        before: Real tokens before it, the prompt. In a sample without a target, all tokens are prompt.
        after: Real tokens after it.
        exists: Bool ``[B]``, whether the sample has a target.
    """

    before: Tensor
    after: Tensor
    exists: Tensor


def last_turn(labels: Tensor, attention_mask: Tensor) -> LastTurn:
    """Find the last run of targets of each sample.

    Args:
        labels: Long ``[B, T]``, -100 where there is no target.
        attention_mask: Bool ``[B, T]``, True at real tokens.
    """
    real = attention_mask.bool()
    target = (labels != IGNORE_INDEX) & real
    columns = torch.arange(labels.shape[1], device=labels.device)
    end = (target * (columns + 1)).amax(1, keepdim=True)  # behind the last target; 0 without one
    start = ((~target & (columns < end)) * (columns + 1)).amax(1, keepdim=True)
    exists = end[:, 0] > 0
    return LastTurn(real & ((columns < start) | ~exists[:, None]), real & (columns >= end) & exists[:, None], exists)


class StudentResponses:
    """Replaces the last answers of a batch by sampled ones.

    Args:
        settings: Sampling settings.
        stop: End of a response.
        vocabulary: Number of tokens to sample from, the rows that both models have.
        max_length: Maximum number of positions of a sample, including visual tokens; responses are cut to fit, but keep
            at least one token.
    """

    def __init__(self, settings: OnPolicySettings, stop: EndOfTurn, vocabulary: int, max_length: int) -> None:
        self.settings = settings
        self.stop = stop
        self.vocabulary = vocabulary
        self.max_length = max_length

    @torch.no_grad()
    def __call__(self, student: VisionLanguageModel, batch: Mapping[str, Any], step: int) -> dict[str, Any]:
        """The batch with the student's responses.

        Args:
            student: The unwrapped model; it runs in eval mode, and its training mode is restored.
            batch: Collated batch, on the student's device.
            step: Number of the optimizer step.

        Returns:
            A batch with the same keys and ``on_policy``, padded on the right. Only the sampled tokens are targets.
        """
        turn = last_turn(batch["labels"], batch["attention_mask"])
        responses = self.sample(student, batch, turn, step)
        tower = student.get_vision_tower()
        extra = 0 if tower is None else tower.num_patches - 1
        rows: dict[str, list[Tensor]] = {name: [] for name in ("input_ids", "labels", "instruction_mask")}
        for row, response in enumerate(responses):
            ids, mask = batch["input_ids"][row], batch["instruction_mask"][row]
            before, after = turn.before[row], turn.after[row]
            kept = torch.cat([ids[before], ids[after]])
            room = self.max_length - len(kept) - extra * int((kept == IMAGE_TOKEN_INDEX).sum())
            response = response[: max(1, room)] if turn.exists[row] else response[:0]
            rows["input_ids"].append(torch.cat([ids[before], response, ids[after]]))
            untrained = (torch.full_like(ids[part], IGNORE_INDEX) for part in (before, after))
            rows["labels"].append(torch.cat([next(untrained), response, next(untrained)]))
            rows["instruction_mask"].append(torch.cat([mask[before], torch.zeros_like(response).bool(), mask[after]]))
        padding = {"input_ids": self.stop.pad_id, "labels": IGNORE_INDEX, "instruction_mask": False}
        new = {name: pad_sequence(rows[name], batch_first=True, padding_value=padding[name]) for name in rows}
        lengths = torch.tensor([len(row) for row in rows["input_ids"]], device=new["input_ids"].device)
        columns = torch.arange(new["input_ids"].shape[1], device=lengths.device)
        return {**batch, **new, "attention_mask": columns < lengths[:, None], ON_POLICY: True}

    def sample(self, student: VisionLanguageModel, batch: Mapping[str, Any], turn: LastTurn, step: int) -> list[Tensor]:
        """One response per sample, including the token that ends it: long ``[n]`` each, ``n >= 1``."""
        ids, mask = batch["input_ids"], batch["attention_mask"]
        longest = self.settings.max_new_tokens
        numbers = SampleNoise(batch, self.settings.seed, step)
        noise = numbers.draws([longest] * len(ids), 1, b"on-policy draws")
        sampler = InverseSampler(
            noise.view(len(ids), longest).to(ids.device), self.settings.temperature, self.vocabulary
        )
        pictures = {}
        if batch.get("images") is not None:  # those of the prompts, in reading order
            markers = (ids == IMAGE_TOKEN_INDEX) & mask.bool()
            images = batch["images"][turn.before[markers]]
            pictures = {"images": images} if len(images) else {}
        training = student.training
        student.eval()
        try:
            tokens = student.generate(
                input_ids=ids,
                attention_mask=turn.before,
                **pictures,
                logits_processor=LogitsProcessorList([sampler]),
                **GREEDY,  # the sampler leaves one token to choose
                max_new_tokens=longest,
                eos_token_id=self.stop.ids or None,
                pad_token_id=self.stop.pad_id,
                stopping_criteria=self.stop.criteria(),
            )
        finally:
            student.train(training)
        return [row[: self.length(row.tolist())] for row in tokens]

    def length(self, tokens: list[int]) -> int:
        """Number of tokens of a response up to and including its end."""
        for index, token in enumerate(tokens):
            if token in self.stop.ids:
                return index + 1
            if self.stop.text and not self.stop.is_token:
                recent = tokens[max(0, index - 2 * len(self.stop.text)) : index + 1]
                if self.stop.text in self.stop.tokenizer.decode(recent, skip_special_tokens=True):
                    return index + 1
        return len(tokens)


class InverseSampler(LogitsProcessor):
    """Draws the next token of each row with given random numbers, and masks all others.

    Args:
        noise: Uniform random numbers ``[B, n]``, one per row and step.
        temperature: Divides the logits.
        vocabulary: Number of tokens to draw from.
    """

    def __init__(self, noise: Tensor, temperature: float, vocabulary: int) -> None:
        self.noise = noise
        self.temperature = temperature
        self.vocabulary = vocabulary

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        """``input_ids [B, steps so far]``, logits ``[B, V]`` -> minus infinity, 0 at the drawn token."""
        numbers = self.noise[:, input_ids.shape[1], None]
        drawn = draw(scores[:, : self.vocabulary], 1, method="multinomial", temperature=self.temperature, noise=numbers)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)
