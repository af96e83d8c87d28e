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

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        inputs = dict(inputs)
        self.bad_samples += int(inputs.pop("skipped", 0))
        if num_items_in_batch is None:
            num_items_in_batch = self._get_num_items_in_batch([inputs], self.args.device)
        tokens, samples = num_items_in_batch.clamp(min=1).unbind()

        def step(student: Any) -> dict[str, Tensor]:
            return self.objective(student, inputs, tokens, samples, step=self.state.global_step)

        terms = model(step=step)
        loss = terms.pop("loss")
        if model.training:
            self.record_terms(terms)
        loss = loss * self.rank_scale
        return (loss, {"loss": loss}) if return_outputs else loss
