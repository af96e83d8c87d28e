"""The overall objective (the paper, Eq. 8): which losses, which passes they need, named terms out.

A step runs the main pass of both models, the candidates' pass, and one chunked pass through both heads for all the
rows that some loss weighs.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from align_ti.attention.packing import pack
from align_ti.attention.ribbon.backends import attention_dtype
from align_ti.candidates.layout import supervised_tokens
from align_ti.candidates.noise import SampleNoise
from align_ti.config import ObjectiveConfig
from align_ti.losses.batch import ON_POLICY, Counts, MicroBatch, Passes
from align_ti.losses.terms import LossTerms
from align_ti.passes import ModelPasses
from align_ti.transfer import send
from llava.model.protocol import VisionLanguageModel
from llava.model.splice import SplicedBatch


class Objective(ModelPasses):
    """Computes the losses of one micro-batch; call it inside the student's forward (see ``LlavaForCausalLM.forward``).

    Args:
        teacher: Frozen, in eval mode, with the ``align_ti`` attention; both models see an image as equally many tokens.
        config: The losses and their settings.
        shared_tower: Whether both models read the same vision tower, which then runs once.

    Attributes:
        losses: The losses that are used, by name.

    Raises:
        InputError: A loss needs an attention map, and no layer was chosen for it.
    """

    def __init__(self, teacher: VisionLanguageModel, config: ObjectiveConfig, shared_tower: bool = False) -> None:
        super().__init__(teacher, config)
        self.shared_tower = shared_tower
        self.losses = config.build()
        self.terms = LossTerms(
            teacher, self.losses, config.divergence.full_name, config.divergence.temperature, config.compile_losses
        )

    def __call__(
        self,
        student: VisionLanguageModel,
        batch: Mapping[str, Any],
        counts: Counts,
        step: int = 0,
    ) -> dict[str, Tensor]:
        """The loss of one micro-batch and its terms.

        Args:
            student: The model being trained, with the ``align_ti`` attention.
            batch: Collated batch, or one with the student's responses (``align_ti.training.on_policy``).
            counts: The denominators, over the global batch.
            step: Number of the optimizer step; with the samples' numbers it determines the draws.

        Returns:
            ``loss`` (differentiable; the weighted sum), the detached unweighted terms by name, and with candidates
            ``candidate_rows``, the rows that ran, over ``counts.tokens``. Sums over all micro-batches are the batch's
            values.

        Raises:
            InputError: The model whose attention is needed has no such layer.
        """
        self.check_layer(student)
        student_inputs, teacher_inputs = self.splice(student, batch)
        host = student_inputs.on_host()
        listed = supervised_tokens(host.labels, host.attention_mask)
        numbers, noise = SampleNoise(batch, self.config.seed, step), None
        if self.drawing is not None and self.drawing.sampling != "greedy":
            per_sample = torch.bincount(listed.sample, minlength=len(host.labels)).tolist()
            noise = send(numbers.draws(per_sample, self.drawing.d), student_inputs.labels.device)
        packing = None
        if self.config.packs(attention_dtype(student_inputs.inputs_embeds)):
            mask = host.attention_mask
            student_inputs, packing = pack(student_inputs, mask)
            teacher_inputs, _ = pack(teacher_inputs, mask)
            host, _ = pack(host)
            listed = supervised_tokens(host.labels, host.attention_mask)
        micro_batch = MicroBatch(
            student_inputs, host, listed, counts, packing, bool(batch.get(ON_POLICY, False)), numbers
        )
        if self.config.ribbon.kind == "algorithm1" and self.drawing is not None:
            passes = self.run_algorithm1(student, micro_batch, teacher_inputs, noise)
        else:
            passes = self.run_prefix(student, micro_batch, teacher_inputs, noise)
        return self.evaluate(student, micro_batch, passes)

    def splice(self, student: VisionLanguageModel, batch: Mapping[str, Any]) -> tuple[SplicedBatch, SplicedBatch]:
        """Both models' inputs; a shared tower runs once."""
        teacher = self.teacher
        names = ("input_ids", "attention_mask", "labels", "instruction_mask")
        inputs = {name: batch[name] for name in names}
        images = batch.get("images")
        if self.shared_tower:
            features = student.vision_features(images)
            student_inputs = student.splice_inputs(**inputs, vision_features=features)
            with torch.no_grad():
                teacher_inputs = teacher.splice_inputs(**inputs, vision_features=features)
        else:
            student_inputs = student.splice_inputs(**inputs, images=images)
            with torch.no_grad():
                teacher_inputs = teacher.splice_inputs(**inputs, images=images)
        return student_inputs, teacher_inputs

    def evaluate(self, student: VisionLanguageModel, batch: MicroBatch, passes: Passes) -> dict[str, Tensor]:
        """The loss and its terms from the hidden states; see ``LossTerms``."""
        out = self.terms(student, batch, passes)
        if passes.listed_layout is not None:
            layout = passes.listed_layout
            ran = int((layout.weight > 0).sum()) if self.config.ribbon.merge_draws else len(layout)
            out["candidate_rows"] = ran / batch.counts.tokens
        return out
