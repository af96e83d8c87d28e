"""The trainer of the distillation stage: the LLaVA trainer with Eq. 8 in the place of its loss."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from align_ti.objective import Objective, iva_samples
from llava.train.trainer import LlavaTrainer


class AlignTITrainer(LlavaTrainer):
    """Trains a student under a teacher; logs every term of the objective.

    The objective runs inside the student's forward, so that DDP and DeepSpeed see one forward and one backward of
    the engine a step. Denominators are those of the global batch: supervised tokens for ``sft``, ``kd`` and ``tpa``,
    samples with image and instruction for ``iva``.

    Args:
        objective: what the student is trained on.
    """

    objective: Objective

    def __init__(self, *args: Any, objective: Objective, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.objective = objective

    def global_counts(self, batches: list[Mapping[str, Any]]) -> Tensor:
        """Float tensor [2]: supervised tokens, and samples that IVA applies to, of this rank's micro-batches."""
        samples = torch.stack([iva_samples(batch) for batch in batches]).sum(0, keepdim=True).float()
        tokens = super().global_counts(batches)
        return torch.cat([tokens, samples.to(tokens.device)])

    def denominator(self, term: str, counts: Tensor) -> Tensor:
        """Samples for ``iva``, tokens for the others."""
        return counts[1] if term == "iva" else counts[0]

    def micro_batch_loss(
        self, model: nn.Module, inputs: dict[str, Any], counts: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Any]:
        """The objective's loss and terms; see ``LlavaTrainer.micro_batch_loss``."""
        tokens, samples = counts.unbind()

        def step(student: Any) -> dict[str, Tensor]:
            return self.objective(student, inputs, tokens, samples, step=self.state.global_step)

        terms = model(step=step)
        loss = terms.pop("loss")
        return loss, terms, {"loss": loss}
