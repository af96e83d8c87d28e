"""What the objective is made of."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from align_ti.iva import IVA_WEIGHTS
from align_ti.relational import SIMILARITIES
from llava.errors import InputError


@dataclass(frozen=True)
class ObjectiveSettings:
    """What Eq. 8 is made of.

    Attributes:
        weights: factor of each term that takes part, of ``sft``, ``kd``, ``iva``, ``tpa``, ``rel``, ``pg``.
        iva_weights: where IVA's weights come from: ``teacher`` (the paper), ``student`` (its Table 8), ``uniform`` (its
            Table 6) or ``teacher_mean`` (between the first and the last).
        iva_layer: the layer ``l*`` of the model whose attention gives the weights; ``uniform`` needs none.
        rel_similarity: of ``rel``, see ``align_ti.relational``.
        divergence, temperature: of ``kd``, ``iva`` and ``tpa``.
        d, sampling, top_p, draws_from: TPA's candidates, see ``align_ti.sampling``.
        ribbon: ``prefix`` or ``algorithm1``; both give the same numbers.
        backend, merge_draws: of the ribbon.
        compile_losses: fuse divergences of logits with ``torch.compile`` (``kd``, ``iva``, ``tpa``, ``pg``).
        packing: lay the samples of a micro-batch in one row, without padding; the numbers stay the same.
        end_of_turn_ids: tokens after which nothing is generated.
        seed: of the draws.

    Raises:
        InputError: IVA without a layer, or an unknown source of its weights or similarity.
    """

    weights: Mapping[str, float]
    iva_layer: int | None = None
    divergence: str = "forward_kl"
    temperature: float = 1.0
    d: int = 4
    sampling: str = "nucleus"
    top_p: float = 0.95
    draws_from: str = "student"
    ribbon: str = "prefix"
    backend: str = "auto"
    merge_draws: bool = True
    compile_losses: bool = False
    packing: bool = False
    end_of_turn_ids: Collection[int] = field(default_factory=frozenset)
    seed: int = 0
    iva_weights: str = "teacher"
    rel_similarity: str = "cosine"

    def __post_init__(self) -> None:
        if self.iva_weights not in IVA_WEIGHTS:
            raise InputError(f"iva_weights is {self.iva_weights!r}; expected one of {', '.join(IVA_WEIGHTS)}")
        if self.rel_similarity not in SIMILARITIES:
            raise InputError(f"rel_similarity is {self.rel_similarity!r}; expected one of {', '.join(SIMILARITIES)}")
        if self.maps_of is not None and self.iva_layer is None:
            raise InputError("iva is among the losses but no layer was chosen for its weights")

    @property
    def maps_of(self) -> str | None:
        """The model whose attention map is needed, ``teacher`` or ``student``, if any."""
        return IVA_WEIGHTS[self.iva_weights] if "iva" in self.weights else None
