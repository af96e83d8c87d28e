"""The trainer of the distillation stage: the LLaVA trainer with Eq. 8 in the place of its loss."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from align_ti.losses.iva import image_samples, iva_samples
from align_ti.objective import Objective
from align_ti.training.on_policy import ON_POLICY, StudentResponses
from llava.train.trainer import LlavaTrainer, supervised_tokens


class AlignTITrainer(LlavaTrainer):
    """Trains a student under a teacher; logs every term of the objective, and with on-policy data the share of the
    supervised tokens that the student sampled, ``on_policy``.

    The objective runs inside the student's forward, so that DDP and DeepSpeed see one forward and one backward of
    the engine a step. Denominators are those of the global batch: supervised tokens for ``sft``, ``kd`` and ``tpa``,
    samples with image and instruction for ``iva`` (with an image, if its weights are equal), samples with an image for
    ``rel``.

    Args:
        objective: what the student is trained on.
        responses: makes the batches of on-policy steps; without it all steps train on the data.
    """

    objective: Objective

    def __init__(
        self, *args: Any, objective: Objective, responses: StudentResponses | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.objective = objective
        self.responses = responses

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The micro-batches of one optimizer step; in an on-policy step the student answers them here, before the
        supervised tokens of the global batch are counted."""
        if self.responses is not None and self.responses.settings.chosen(self.state.global_step):
            epoch_iterator = map(self.answered, epoch_iterator)
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def answered(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """The batch with the student's own responses."""
        assert self.responses is not None
        on_device: Any = self._prepare_inputs(dict(batch))
        return self.responses(self.accelerator.unwrap_model(self.model), on_device, self.state.global_step)

    def global_counts(self, batches: list[Mapping[str, Any]]) -> Tensor:
        """Float tensor [3] of this rank's micro-batches: supervised tokens, samples with an image and an instruction,
        samples with an image."""
        tokens = super().global_counts(batches)
        samples = [torch.stack([count(batch) for batch in batches]).sum() for count in (iva_samples, image_samples)]
        return torch.cat([tokens, torch.stack(samples).to(tokens)])

    def denominator(self, term: str, counts: Tensor) -> Tensor:
        """Samples for ``iva`` and ``rel``, tokens for the others."""
        if term == "rel" or (term == "iva" and self.objective.settings.iva_weights == "uniform"):
            return counts[2]
        return counts[1] if term == "iva" else counts[0]

    def micro_batch_loss(
        self, model: nn.Module, inputs: dict[str, Any], counts: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Any]:
        """The objective's loss and terms; see ``LlavaTrainer.micro_batch_loss``."""
        tokens, samples, images = counts.unbind()

        def step(student: Any) -> dict[str, Tensor]:
            return self.objective(student, inputs, tokens, samples, step=self.state.global_step, image_samples=images)

        terms = model(step=step)
        loss = terms.pop("loss")
        if self.responses is not None and model.training:
            sampled = supervised_tokens(inputs["labels"]) * bool(inputs.get(ON_POLICY, False))
            terms["on_policy"] = sampled / tokens
        return loss, terms, {"loss": loss}
