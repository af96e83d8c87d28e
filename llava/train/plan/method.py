"""What a plan needs to know about a distillation method; ``llava`` does not know the methods, so the trainer describes
them."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """Properties of a distillation that memory and time depend on.

    Attributes:
        teacher: Checkpoint folder or hub name of the teacher.
        chunk_rows: Rows of logits that the losses compute at once, given the vocabulary size.
        sharded: Whether the teacher is sharded over the GPUs instead of copied to each.
        response_rows: How often the supervised tokens go through the heads.
        divergence: Whether they go through the teacher's head too (not with the cross-entropy alone).
        visual_rows: Whether the visual tokens go through both heads (IVA).
        drawn_rows: How many of a sample's visual tokens these are; 0 for all.
        candidates: Tokens drawn at each supervised token, ``d`` (TPA); 0 for none.
        merged: Whether equal draws share a row.
        greedy: Whether the most likely tokens are used instead of random draws.
        drawn_by_teacher: Whether the teacher draws them.
        interleaved: Whether candidates and main path run as one longer sequence with a dense mask (Algorithm 1),
            instead of the candidates alone over cached keys and values.
        ribbon_block: Candidates of a sample that share one copy of its keys in each layer; None: all of them.
        attention_map: Whether the teacher's attention weights the visual tokens.
        relations: Whether the visual tokens of an image are compared with each other.
        packing: Whether samples are concatenated without padding.
        on_policy: Share of the steps in which the student samples the responses first.
        new_tokens: Maximum length of such a response.
    """

    teacher: str
    chunk_rows: Callable[[int], int]
    sharded: bool = False
    response_rows: int = 1
    divergence: bool = True
    visual_rows: bool = False
    drawn_rows: int = 0
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

    def visual_share(self, tokens: int) -> float:
        """Share of the visual tokens that go through both heads.

        Args:
            tokens: Visual tokens of an image, of which a sample is taken to have one.
        """
        if not self.visual_rows or not tokens:
            return 0.0
        return min(1.0, self.drawn_rows / tokens) if self.drawn_rows else 1.0
