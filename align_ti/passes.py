"""The passes of a step: both models over the batch, and over the drawn candidates.

What they leave behind (``Passes``) is all that the losses read.
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from align_ti.attention.interface import AttentionCapture, anything_4d
from align_ti.attention.maps import MapRequest
from align_ti.attention.packing import PackedAttention, Packing, packed_attention
from align_ti.attention.ribbon.backends import attention_dtype, resolve_backend, ribbon_attention
from align_ti.attention.ribbon.geometry import ribbon_geometry
from align_ti.candidates.algorithm1 import single_pass
from align_ti.candidates.joined import joined_pass
from align_ti.candidates.layout import CandidateLayout, candidate_layout
from align_ti.candidates.prefix import candidate_pass
from align_ti.candidates.sampling import draw_candidates
from align_ti.config import ObjectiveConfig
from align_ti.losses.batch import MicroBatch, Passes
from align_ti.losses.loss import AttentionMap
from align_ti.losses.tpa import transitions
from align_ti.numerics import exact_dtype
from llava.errors import InputError
from llava.model.head import with_weight
from llava.model.protocol import VisionLanguageModel
from llava.model.splice import SplicedBatch


class TeacherPass(NamedTuple):
    """The teacher's last hidden states ``[B, S, D]``, and what its main pass recorded."""

    hidden: Tensor
    capture: AttentionCapture | None

    @property
    def maps(self) -> Mapping[int, Tensor] | None:
        """Its attention maps by layer."""
        return None if self.capture is None else self.capture.maps


class ModelPasses:
    """Runs the passes that an objective needs.

    Args:
        teacher: Frozen, in eval mode, with the ``align_ti`` attention.
        config: The losses and their settings.

    Raises:
        InputError: A loss needs an attention map, and no layer was chosen for it.
    """

    def __init__(self, teacher: VisionLanguageModel, config: ObjectiveConfig) -> None:
        self.teacher = teacher
        self.config = config
        self.attention = config.attention
        self.drawing = config.candidates
        self.layer = _number(self.attention)

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

    def packed(self, packing: Packing, inputs: SplicedBatch) -> PackedAttention:
        """The attention of a packed main pass."""
        backend = resolve_backend(self.config.ribbon.backend, attention_dtype(inputs.inputs_embeds))
        return packed_attention(packing, backend)

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
            extra = {"packed": self.packed(packing, inputs)}
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

    def maps_of(self, of: str, batch: MicroBatch) -> MapRequest | None:
        """The attention maps to record in the main pass of a model (``teacher`` or ``student``)."""
        if self.attention is None or self.layer is None or self.attention.of != of:
            return None
        spans = None if batch.packing is None else batch.packing.spans
        return MapRequest(frozenset([self.layer]), batch.host.instruction_mask, batch.host.attention_mask, spans)

    def capture(self, of: str, batch: MicroBatch, keep_prefix: bool) -> AttentionCapture | None:
        """What the main pass of a model has to leave behind."""
        maps = self.maps_of(of, batch)
        return AttentionCapture(keep_prefix, maps) if keep_prefix or maps is not None else None

    def map_of(self, teacher: Mapping[int, Tensor] | None, student: AttentionCapture | None) -> Tensor | None:
        """The attention map of ``l*`` from the model that has it, ``[B, S]``.

        Args:
            teacher: Maps of the teacher, by layer.
            student: What the student's main pass recorded.
        """
        if self.attention is None or self.layer is None:
            return None
        maps = teacher if self.attention.of == "teacher" else None if student is None else student.maps
        return None if maps is None else maps[self.layer]

    def run_prefix(
        self,
        student: VisionLanguageModel,
        batch: MicroBatch,
        teacher_inputs: SplicedBatch,
        noise: Tensor | None,
    ) -> Passes:
        """Main passes that keep their keys and values, then the candidates alone.

        The student comes first: the host waits once, for its draws, and all that follows is launched while the
        teacher's pass keeps the GPU busy. In a packed row the teacher's candidates are further rows of its main pass.
        """
        if self.drawing is None:
            teacher = self.teacher_pass(batch, teacher_inputs, keep_prefix=False)
            student_capture = self.capture("student", batch, keep_prefix=False)
            hidden = self.main_pass(student, batch.inputs, student_capture, batch.packing)
            attention = self.map_of(teacher.maps, student_capture)
            return Passes(hidden.flatten(0, 1), teacher.hidden.flatten(0, 1), attention=attention)
        teacher_draws = self.drawing.draws_from == "teacher"
        joined = batch.packing is not None and not teacher_draws
        first = self.teacher_pass(batch, teacher_inputs, keep_prefix=True) if teacher_draws else None
        student_capture = self.capture("student", batch, keep_prefix=True)
        assert student_capture is not None
        passes = Passes(self.main_pass(student, batch.inputs, student_capture, batch.packing).flatten(0, 1), None)
        if first is not None:
            passes.teacher_main = first.hidden.flatten(0, 1)
        listed = self.candidates(student, batch, passes, noise)
        device = passes.student_main.device
        layout = listed.to(device)
        passes.layout, passes.listed_layout = layout, listed
        bounds = None if batch.packing is None else torch.tensor([0, *(stop for _, stop in batch.packing.spans)])
        geometry = ribbon_geometry(listed.sample, listed.limit, batch.host.attention_mask, bounds, device)
        backend = self.config.ribbon.backend
        if joined:
            assert batch.packing is not None
            states = joined_pass(
                self.teacher.model,
                teacher_inputs.inputs_embeds,
                teacher_inputs.position_ids,
                layout,
                self.packed(batch.packing, teacher_inputs),
                ribbon_attention(geometry, backend, attention_dtype(teacher_inputs.inputs_embeds)),
                self.maps_of("teacher", batch),
            )
            passes.teacher_main, passes.teacher_candidates = states.main.flatten(0, 1), states.candidates
            passes.attention = self.map_of(states.maps, student_capture)
            passes.student_candidates = candidate_pass(student.model, student_capture, layout, geometry, backend)
            return passes
        teacher = first or self.teacher_pass(batch, teacher_inputs, keep_prefix=True)
        assert teacher.capture is not None
        passes.teacher_main = teacher.hidden.flatten(0, 1)
        passes.attention = self.map_of(teacher.maps, student_capture)
        passes.student_candidates, passes.teacher_candidates = transitions(
            student.model, self.teacher.model, student_capture, teacher.capture, layout, geometry, backend
        )
        return passes

    @torch.no_grad()
    def teacher_pass(self, batch: MicroBatch, inputs: SplicedBatch, keep_prefix: bool) -> TeacherPass:
        """The teacher's main pass."""
        capture = self.capture("teacher", batch, keep_prefix)
        return TeacherPass(self.main_pass(self.teacher, inputs, capture, batch.packing), capture)

    def run_algorithm1(
        self,
        student: VisionLanguageModel,
        batch: MicroBatch,
        teacher_inputs: SplicedBatch,
        noise: Tensor | None,
    ) -> Passes:
        """The paper's procedure: a pass to draw from, then one interleaved pass of each model."""
        assert self.drawing is not None
        inputs = batch.inputs
        with torch.no_grad():
            student_capture = self.capture("student", batch, keep_prefix=False)
            drawing = Passes(self.main_pass(student, inputs, student_capture).flatten(0, 1), None)
            maps = None
            if self.maps_of("teacher", batch) is not None or self.drawing.draws_from == "teacher":
                teacher = self.teacher_pass(batch, teacher_inputs, keep_prefix=False)
                drawing.teacher_main, maps = teacher.hidden.flatten(0, 1), teacher.maps
        listed = self.candidates(student, batch, drawing, noise)
        layout = listed.to(inputs.labels.device)
        with torch.no_grad():
            taught = single_pass(
                self.teacher.model,
                teacher_inputs.inputs_embeds,
                teacher_inputs.attention_mask,
                teacher_inputs.position_ids,
                layout,
            )
        learnt = single_pass(student.model, inputs.inputs_embeds, inputs.attention_mask, inputs.position_ids, layout)
        return Passes(
            learnt.main.flatten(0, 1),
            taught.main.flatten(0, 1),
            learnt.candidates,
            taught.candidates,
            layout,
            listed,
            self.map_of(maps, student_capture),
        )

    def candidates(
        self, student: VisionLanguageModel, batch: MicroBatch, passes: Passes, noise: Tensor | None
    ) -> CandidateLayout:
        """Draw the candidates from the main pass and lay them out, on the CPU: the host waits for the draws."""
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
            draws = with_weight(drawer.lm_head, hidden.index_select(0, batch.supervised.predicting), draw)
        return candidate_layout(
            batch.listed,
            draws.cpu(),
            batch.host.attention_mask,
            batch.host.position_ids,
            end_of_turn_ids=self.config.end_of_turn_ids,
            merge=self.config.ribbon.merge_draws,
            dtype=exact_dtype(hidden),
        )


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
