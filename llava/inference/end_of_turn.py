"""Detecting the end of an answer: the template's end-of-turn string, as one token or several."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from llava.conversation import Template
from llava.model.protocol import VisionLanguageModel


@dataclass(frozen=True)
class EndOfTurn:
    """Token ids that end an answer, and the string at which it is cut.

    ``ids`` are the end tokens of the tokenizer and of the model, and the template's end-of-turn string if that is a
    single token. If it is not (``</s>`` with Qwen's tokenizer), generation stops when the text contains it.
    """

    tokenizer: PreTrainedTokenizerBase
    text: str
    ids: list[int]
    pad_id: int
    is_token: bool

    @classmethod
    def of(cls, template: Template, tokenizer: PreTrainedTokenizerBase, model: VisionLanguageModel) -> "EndOfTurn":
        """The end of a turn for a template, a tokenizer and a model."""
        text = template.end_of_turn
        pieces = tokenizer.encode(text, add_special_tokens=False) if text else []
        configured = model.generation_config.eos_token_id
        ids = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}
        if len(pieces) == 1:
            ids.add(pieces[0])
        known = sorted(index for index in ids if index is not None)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (known or [0])[0]
        return cls(tokenizer, text, known, pad, is_token=len(pieces) == 1)

    def criteria(self) -> StoppingCriteriaList | None:
        """A stopping rule on the text, if token ids are not sufficient."""
        if self.is_token or not self.text:
            return None
        return StoppingCriteriaList([_TextContains(self.tokenizer, self.text)])

    def read(self, tokens: list[int], max_new_tokens: int) -> tuple[str, str]:
        """Text of the new tokens up to the end of the turn, stripped; and ``stop`` or ``length``."""
        end = next((index for index, token in enumerate(tokens) if token in self.ids), None)
        text = self.tokenizer.decode(tokens[:end], skip_special_tokens=True)
        assert isinstance(text, str)  # of one row
        before, found, _ = text.partition(self.text) if self.text else (text, "", "")
        stopped = end is not None or bool(found) or len(tokens) < max_new_tokens
        return before.strip(), "stop" if stopped else "length"


class _TextContains(StoppingCriteria):
    """True for rows whose last few tokens decode to the string."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text: str) -> None:
        self.tokenizer = tokenizer
        self.text = text
        self.window = len(tokenizer.encode(text, add_special_tokens=False)) + 4

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:  # type: ignore[override]
        recent = self.tokenizer.batch_decode(input_ids[:, -self.window :], skip_special_tokens=True)
        return torch.tensor([self.text in text for text in recent], device=input_ids.device)
