"""The interface of a loss: name, title, equation, unit, denominator, settings, what it needs, and how it is computed.

There are two kinds. A ``RowLoss`` assigns weights to rows of hidden states; the weighted rows of all losses go through
both heads in one chunked pass (``terms.py``). A ``HeadLoss`` is a function of both models' rows and heads.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from align_ti.losses.batch import Denominator, MicroBatch, Passes
from align_ti.losses.divergences import Divergence
from align_ti.losses.rows import WeightedRows
from align_ti.settings import FACTOR, Section, setting


@dataclass(frozen=True, kw_only=True)
class LossConfig(Section):
    """Settings of one loss; its ``section`` is the loss's name."""

    weight: float = 1.0


def factor(of: str) -> Any:
    """The setting ``weight`` of a loss."""
    return setting(1.0, f"factor of {of}", FACTOR)


@dataclass(frozen=True)
class AttentionMap:
    """Request of a loss: the attention from the instruction to the visual tokens in one layer.

    Attributes:
        of: Model whose attention is used, ``teacher`` or ``student``.
        layer: Layer number from 0, a depth (``75%``), or ``auto``.
        setting: Path of the setting that gives the layer.
    """

    of: str
    layer: int | str
    setting: str = field(default="", compare=False)


@dataclass(frozen=True)
class Candidates:
    """Request of a loss: tokens drawn at each supervised token and run through both models.

    Attributes:
        d: Number of draws.
        sampling: Sampling method, one of ``align_ti.candidates.sampling.METHODS``.
        top_p: Probability mass of nucleus sampling.
        draws_from: Model that they are drawn from, ``student`` or ``teacher``.
    """

    d: int
    sampling: str
    top_p: float
    draws_from: str


class Steps(Enum):
    """The steps in which a loss is defined."""

    ALL = "all"
    DATA = "those on the data's responses"
    SAMPLED = "those on the student's own responses"


class Reads(Enum):
    """The hidden states that a loss reads on the main path, besides candidates."""

    RESPONSES = "at the supervised tokens"
    VISUAL_TOKENS = "at the visual tokens"
    VISUAL_PAIRS = "at pairs of visual tokens, without making logits"


class Compares(Enum):
    """What a ``RowLoss`` computes in each of its rows, unless it defines its own function."""

    CROSS_ENTROPY = "the student with the label"
    DIVERGENCE = "the student with the teacher, by the objective's divergence"


C = TypeVar("C", bound=LossConfig)


class Loss(ABC, Generic[C]):
    """One loss of the objective.

    A subclass sets the class attributes and may override the properties. To add a loss, write one such file and a line
    in ``align_ti/losses/registry.py``: flags, log, plots, model card and the site's tables follow.

    Args:
        config: Its settings, a ``Config``.
    """

    name: ClassVar[str]
    """Name in the log, and prefix of its flags."""
    title: ClassVar[str]
    """Title for plots and model cards."""
    equation: ClassVar[str]
    """LaTeX, for one sample."""
    unit: ClassVar[str] = "nats per token"
    """Unit of its value in the log."""
    signed: ClassVar[bool] = False
    """Whether its value can be negative."""
    Config: ClassVar[type[LossConfig]]
    reads: ClassVar[Reads] = Reads.RESPONSES
    steps: ClassVar[Steps] = Steps.ALL

    def __init__(self, config: C) -> None:
        self.config = config

    @property
    def denominator(self) -> Denominator:
        """What it is a mean over."""
        return Denominator.TOKENS

    @property
    def attention(self) -> AttentionMap | None:
        """The attention map that it needs."""
        return None

    @property
    def candidates(self) -> Candidates | None:
        """The candidates that it needs."""
        return None

    @property
    def visual_rows(self) -> int:
        """Maximum number of visual tokens per sample; 0 for all."""
        return 0

    def defined(self, on_policy: bool) -> bool:
        """Whether it is defined in a step on the student's own responses (``on_policy``) or on the data's."""
        return self.steps is Steps.ALL or (self.steps is Steps.SAMPLED) == on_policy


class RowLoss(Loss[C]):
    """A weighted sum over rows of what each compares."""

    @property
    def compares(self) -> Compares | Divergence:
        """What is computed in each row. A function of two blocks of logits needs its own pass through both heads."""
        return Compares.DIVERGENCE

    @abstractmethod
    def weights(self, batch: MicroBatch, passes: Passes) -> Tensor | WeightedRows:
        """Weight of each row of main path and candidates before the mean is taken, ``[B * S + C]``; 0 if unused.

        ``WeightedRows`` name the rows as well. These then run beside those of the other losses, even where another loss
        uses the same row.
        """

    def places(self, batch: MicroBatch, passes: Passes) -> Tensor:
        """The rows whose weight may not be 0, long ``[R]``, on the CPU; not asked of a loss with ``WeightedRows``."""
        return batch.listed.predicting


class HeadLoss(Loss[C]):
    """A function of both models' rows and heads."""

    also_logged: ClassVar[tuple[str, ...]] = ()
    """Names of further values that it computes."""

    @abstractmethod
    def rows(self, batch: MicroBatch) -> Tensor:
        """The rows that it reads, long ``[R]`` into ``[B * S]``."""

    @abstractmethod
    def compute(
        self,
        student_hidden: Tensor,
        student_weight: Tensor,
        teacher_hidden: Tensor,
        teacher_weight: Tensor,
        *,
        batch: MicroBatch,
        count: Tensor,
        compiled: bool,
    ) -> tuple[Tensor, ...]:
        """The loss, differentiable in the student's two tensors, and the values of ``also_logged``.

        Args:
            student_hidden: ``[R, D_s]``, the rows given by ``rows``.
            student_weight: ``[V_s, D_s]``, the head without bias.
            teacher_hidden: ``[R, D_t]``, row for row with the student's.
            teacher_weight: ``[V_t, D_t]``.
            batch: The rest of the micro-batch.
            count: The denominator, to divide by.
            compiled: Whether ``torch.compile`` fuses what is done to logits.
        """
