"""The trainer of the distillation stage: the LLaVA trainer with Eq. 8 as its loss."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from align_ti.losses.batch import ON_POLICY, Counts, Denominator, images, instructed_images
from align_ti.objective import Objective
from align_ti.training.on_policy import StudentResponses
from llava.model.protocol import VisionLanguageModel
from llava.train.micro_batches import flat
from llava.train.trainer import LlavaTrainer, supervised_tokens


class AlignTITrainer(LlavaTrainer):
    """Trains a student under a teacher; logs every term of the objective, and with on-policy data the share of the
    supervised tokens that the student sampled, ``on_policy``.

    The objective runs inside the student's forward, so that DDP and DeepSpeed see one forward and one backward of
    the engine per step. Denominators are those of the global batch, see ``Denominator``.

    Args:
        objective: The losses.
        responses: Replaces responses in on-policy steps; without it all steps train on the data.
    """

    objective: Objective

    def __init__(
        self, *args: Any, objective: Objective, responses: StudentResponses | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.objective = objective
        self.responses = responses

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list, Any]:
        """The micro-batches of one optimizer step; in an on-policy step the student answers them here, before the
        supervised tokens of the global batch are counted."""
        if self.responses is not None and self.responses.settings.chosen(self.state.global_step):
            epoch_iterator = ([self.answered(batch) for batch in flat([item])] for item in epoch_iterator)
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    @property
    def pads(self) -> bool:
        """Whether the samples of a micro-batch are padded to the longest."""
        return self.objective.config.packing is not True

    def answered(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """The batch with the student's own responses."""
        assert self.responses is not None
        on_device: Any = self._prepare_inputs(dict(batch))
        return self.responses(self.accelerator.unwrap_model(self.model), on_device, self.state.global_step)

    def global_counts(self, batches: list[Mapping[str, Any]]) -> Tensor:
        """Float tensor [3] of this rank's micro-batches, ordered as ``Counts``."""
        tokens = super().global_counts(batches)
        samples = [torch.stack([count(batch) for batch in batches]).sum() for count in (instructed_images, images)]
        return torch.cat([tokens, torch.stack(samples).to(tokens)])

    def denominator(self, term: str, counts: Tensor) -> Tensor:
        """The denominator of a loss; supervised tokens for other logged values."""
        loss = self.objective.losses.get(term)
        return Counts(*counts.unbind()).of(Denominator.TOKENS if loss is None else loss.denominator)

    def micro_batch_loss(
        self, model: nn.Module, inputs: dict[str, Any], counts: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Any]:
        """The objective's loss and terms; see ``LlavaTrainer.micro_batch_loss``."""
        named = Counts(*counts.unbind())

        def step(student: VisionLanguageModel) -> dict[str, Tensor]:
            return self.objective(student, inputs, named, step=self.state.global_step)

        terms = model(step=step)
        loss = terms.pop("loss")
        if self.responses is not None and model.training:
            sampled = supervised_tokens(inputs["labels"]) * bool(inputs.get(ON_POLICY, False))
            terms["on_policy"] = sampled / named.tokens
        return loss, terms, {"loss": loss}
