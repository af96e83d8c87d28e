"""The overall objective (the paper, Eq. 8): which losses, which passes they need, named terms out.

A step runs the main pass of both models, the candidates' pass, and one chunked pass through both heads for all the
rows that some loss weighs.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from align_ti.attention.interface import AttentionCapture, anything_4d
from align_ti.attention.maps import MapRequest
from align_ti.attention.packing import Packing, pack, packed_attention
from align_ti.attention.ribbon.backends import attention_dtype, resolve_backend
from align_ti.candidates.algorithm1 import single_pass
from align_ti.candidates.layout import CandidateLayout, SupervisedTokens, candidate_layout, supervised_tokens
from align_ti.candidates.noise import SampleNoise
from align_ti.candidates.sampling import draw_candidates
from align_ti.config import ObjectiveConfig
from align_ti.losses.batch import ON_POLICY, Counts, MicroBatch, Passes
from align_ti.losses.loss import AttentionMap
from align_ti.losses.terms import LossTerms
from align_ti.losses.tpa import transitions
from align_ti.numerics import exact_dtype
from llava.errors import InputError
from llava.model.head import with_weight
from llava.model.protocol import VisionLanguageModel
from llava.model.splice import SplicedBatch


class Objective:
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
        self.teacher = teacher
        self.config = config
        self.shared_tower = shared_tower
        self.attention = config.attention
        self.drawing = config.candidates
        self.layer = _number(self.attention)
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
            InputError: the model whose attention is needed has no such layer.
        """
        self.check_layer(student)
        student_inputs, teacher_inputs = self.splice(student, batch)
        supervised = supervised_tokens(student_inputs.labels, student_inputs.attention_mask)
        numbers, noise = SampleNoise(batch, self.config.seed, step), None
        if self.drawing is not None and self.drawing.sampling != "greedy":
            per_sample = torch.bincount(supervised.sample, minlength=len(student_inputs.labels)).tolist()
            noise = numbers.draws(per_sample, self.drawing.d).to(supervised.label.device)
        packing = None
        if self.config.packing:
            student_inputs, packing = pack(student_inputs)
            teacher_inputs, _ = pack(teacher_inputs)
            supervised = supervised_tokens(student_inputs.labels, student_inputs.attention_mask)
        if self.config.ribbon.kind == "algorithm1" and self.drawing is not None:
            passes = self.run_algorithm1(student, student_inputs, teacher_inputs, supervised, noise)
        else:
            passes = self.run_prefix(student, student_inputs, teacher_inputs, supervised, noise, packing)
        on_policy = bool(batch.get(ON_POLICY, False))
        micro_batch = MicroBatch(student_inputs, supervised, counts, packing, on_policy, numbers)
        return self.evaluate(student, micro_batch, passes)

    def check_layer(self, student: VisionLanguageModel) -> None:
        """Raise ``InputError`` if the model whose attention is needed does not have the layer."""
        if self.attention is None or self.layer is None:
            return
        layers = (student if self.attention.of == "student" else self.teacher).config.num_hidden_layers
        if self.layer >= layers:
            raise InputError(
                f"{self.attention.setting} is {self.layer}, but the {self.attention.of} has {layers} layers, 0 to "
                f"{layers - 1}"
            )

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

    def main_pass(
        self,
        model: VisionLanguageModel,
        inputs: SplicedBatch,
        capture: AttentionCapture | None,
        packing: Packing | None = None,
    ) -> Tensor:
        """Last hidden states ``[B, S, D]`` of the plain forward pass."""
        extra = {}
        mask: Tensor | None = inputs.attention_mask
        positions: Tensor | None = inputs.position_ids
        if packing is not None:
            backend = resolve_backend(self.config.ribbon.backend, attention_dtype(inputs.inputs_embeds))
            extra = {"packed": packed_attention(packing, backend)}
            mask = anything_4d(inputs.labels)
        elif inputs.right_padded:
            # Without a mask, causal attention takes its fast kernels and keys are not repeated. Positions count from 0
            # in every row; given, those of the padding would be taken for packed samples.
            mask = positions = None
        return model.model(
            inputs_embeds=inputs.inputs_embeds,
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
            capture=capture,
            **extra,
        ).last_hidden_state

    def capture(
        self, of: str, inputs: SplicedBatch, keep_prefix: bool, packing: Packing | None = None
    ) -> AttentionCapture | None:
        """What the main pass of a model (``teacher`` or ``student``) has to leave behind."""
        maps = None
        if self.attention is not None and self.layer is not None and self.attention.of == of:
            spans = None if packing is None else packing.spans
            maps = MapRequest(frozenset([self.layer]), inputs.instruction_mask, inputs.attention_mask, spans)
        return AttentionCapture(keep_prefix, maps) if keep_prefix or maps is not None else None

    def map_of(self, teacher: AttentionCapture | None, student: AttentionCapture | None) -> Tensor | None:
        """The attention map of ``l*`` from the capture that has it, ``[B, S]``."""
        if self.attention is None or self.layer is None:
            return None
        capture = teacher if self.attention.of == "teacher" else student
        return None if capture is None else capture.maps[self.layer]

    def run_prefix(
        self,
        student: VisionLanguageModel,
        student_inputs: SplicedBatch,
        teacher_inputs: SplicedBatch,
        supervised: SupervisedTokens,
        noise: Tensor | None,
        packing: Packing | None = None,
    ) -> Passes:
        """Main passes that keep their keys and values, then the candidates alone."""
        drawing = self.drawing is not None
        teacher_capture = self.capture("teacher", teacher_inputs, drawing, packing)
        with torch.no_grad():
            teacher_main = self.main_pass(self.teacher, teacher_inputs, teacher_capture, packing)
        student_capture = self.capture("student", student_inputs, drawing, packing)
        student_main = self.main_pass(student, student_inputs, student_capture, packing)
        attention = self.map_of(teacher_capture, student_capture)
        passes = Passes(student_main.flatten(0, 1), teacher_main.flatten(0, 1), attention=attention)
        if drawing:
            assert student_capture is not None and teacher_capture is not None
            passes.layout = self.candidates(student, student_inputs, supervised, passes, noise)
            passes.student_candidates, passes.teacher_candidates = transitions(
                student.model,
                self.teacher.model,
                student_capture,
                teacher_capture,
                passes.layout,
                student_inputs.attention_mask,
                self.config.ribbon.backend,
                None if packing is None else packing.bounds,
            )
        return passes

    def run_algorithm1(
        self,
        student: VisionLanguageModel,
        student_inputs: SplicedBatch,
        teacher_inputs: SplicedBatch,
        supervised: SupervisedTokens,
        noise: Tensor | None,
    ) -> Passes:
        """The paper's procedure: a pass to draw from, then one interleaved pass of each model."""
        assert self.drawing is not None
        with torch.no_grad():
            student_capture = self.capture("student", student_inputs, keep_prefix=False)
            drawing = Passes(self.main_pass(student, student_inputs, student_capture).flatten(0, 1), None)
            capture = self.capture("teacher", teacher_inputs, keep_prefix=False)
            if capture is not None or self.drawing.draws_from == "teacher":
                drawing.teacher_main = self.main_pass(self.teacher, teacher_inputs, capture).flatten(0, 1)
        layout = self.candidates(student, student_inputs, supervised, drawing, noise)
        with torch.no_grad():
            taught = single_pass(
                self.teacher.model,
                teacher_inputs.inputs_embeds,
                teacher_inputs.attention_mask,
                teacher_inputs.position_ids,
                layout,
            )
        learnt = single_pass(
            student.model,
            student_inputs.inputs_embeds,
            student_inputs.attention_mask,
            student_inputs.position_ids,
            layout,
        )
        return Passes(
            learnt.main.flatten(0, 1),
            taught.main.flatten(0, 1),
            learnt.candidates,
            taught.candidates,
            layout,
            self.map_of(capture, student_capture),
        )

    def candidates(
        self,
        student: VisionLanguageModel,
        inputs: SplicedBatch,
        supervised: SupervisedTokens,
        passes: Passes,
        noise: Tensor | None,
    ) -> CandidateLayout:
        """Draw the candidates from the main pass and lay them out."""
        drawing = self.drawing
        assert drawing is not None
        drawer, hidden = student, passes.student_main
        if drawing.draws_from == "teacher":
            assert passes.teacher_main is not None
            drawer, hidden = self.teacher, passes.teacher_main
        draw = partial(
            draw_candidates,
            d=drawing.d,
            method=drawing.sampling,
            top_p=drawing.top_p,
            vocabulary=min(student.lm_head.out_features, self.teacher.lm_head.out_features),
            noise=noise,
        )
        with torch.no_grad():
            draws = with_weight(drawer.lm_head, hidden[supervised.predicting], draw)
        return candidate_layout(
            supervised,
            draws,
            inputs.attention_mask,
            inputs.position_ids,
            end_of_turn_ids=self.config.end_of_turn_ids,
            merge=self.config.ribbon.merge_draws,
            dtype=exact_dtype(hidden),
        )

    def evaluate(self, student: VisionLanguageModel, batch: MicroBatch, passes: Passes) -> dict[str, Tensor]:
        """The loss and its terms from the hidden states; see ``LossTerms``."""
        out = self.terms(student, batch, passes)
        if passes.layout is not None:
            tokens, layout = batch.counts.tokens, passes.layout
            ran = (layout.weight > 0).sum() if self.config.ribbon.merge_draws else torch.tensor(len(layout))
            out["candidate_rows"] = ran.to(tokens.device) / tokens
        return out


def _number(attention: AttentionMap | None) -> int | None:
    """The layer of an attention map.

    Raises:
        InputError: It is still to be chosen.
    """
    if attention is None:
        return None
    if isinstance(attention.layer, int) or attention.layer.isdecimal():
        return int(attention.layer)
    raise InputError(
        f"{attention.setting} is {attention.layer!r}, so no layer was chosen for the attention map; give its number "
        "(align_ti.irs scores the layers), or train with align_ti.distill, which chooses it"
    )
