"""What a plan has to know about a distillation; ``llava`` does not know the methods, so the trainer describes them."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """A distillation, as far as memory and time depend on it.

    Attributes:
        teacher: Checkpoint folder or hub name of the teacher.
        chunk_rows: Rows of logits that the losses make at once, given the size of the vocabulary.
        sharded: Whether every GPU holds a piece of the teacher, instead of a copy.
        response_rows: How often the supervised tokens go through the heads.
        divergence: Whether they go through the teacher's head too (not with the cross-entropy alone).
        visual_rows: Whether the visual tokens go through both heads (IVA).
        candidates: Tokens drawn at each supervised token, ``d`` (TPA); 0 for none.
        merged: Whether equal draws share a row.
        greedy: Whether the likeliest tokens are taken instead of draws.
        drawn_by_teacher: Whether the teacher draws them.
        interleaved: Whether candidates and main path run as one longer sequence with a dense mask (Algorithm 1),
            instead of the candidates alone on kept keys and values.
        ribbon_block: Candidates of a sample that share one copy of its keys in each layer; None: all of them.
        attention_map: Whether the teacher's attention weighs the visual tokens.
        relations: Whether the visual tokens of an image are compared with each other.
        packing: Whether samples lie one after the other, without padding.
        on_policy: Share of the steps whose responses the student samples first.
        new_tokens: Longest such response.
    """

    teacher: str
    chunk_rows: Callable[[int], int]
    sharded: bool = False
    response_rows: int = 1
    divergence: bool = True
    visual_rows: bool = False
    candidates: int = 0
    merged: bool = True
    greedy: bool = False
    drawn_by_teacher: bool = False
    interleaved: bool = False
    ribbon_block: int | None = None
    attention_map: bool = False
    relations: bool = False
    packing: bool = False
    on_policy: float = 0.0
    new_tokens: int = 0
