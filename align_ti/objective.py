"""The overall objective (the paper, Eq. 8): which losses, which passes they need, named terms out.

A step runs the main pass of both models, TPA's candidate pass, and one chunked pass through both heads for all the
rows that some loss weighs.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from align_ti.attention import AttentionCapture, anything_4d
from align_ti.attention_maps import MapRequest
from align_ti.divergence import LinearDivergence, linear_divergence
from align_ti.iva import iva_rows
from align_ti.noise import draw_noise
from align_ti.packing import Packing, pack, packed_attention
from align_ti.ribbon.algorithm1 import single_pass
from align_ti.ribbon.backends import attention_dtype, resolve_backend
from align_ti.ribbon.layout import CandidateLayout, SupervisedTokens, candidate_layout, supervised_tokens
from align_ti.sampling import draw_candidates
from align_ti.tpa import transitions
from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import InputError
from llava.model.head import with_weight
from llava.model.splice import SplicedBatch


@dataclass(frozen=True)
class ObjectiveSettings:
    """What Eq. 8 is made of.

    Attributes:
        weights: factor of each term that takes part, of ``sft``, ``kd``, ``iva``, ``tpa``.
        iva_layer: the teacher's layer ``l*``; needed for ``iva``.
        divergence, temperature: of ``kd``, ``iva`` and ``tpa``.
        d, sampling, top_p, draws_from: TPA's candidates, see ``align_ti.sampling``.
        ribbon: ``prefix`` or ``algorithm1``; both give the same numbers.
        backend, merge_draws: of the ribbon.
        packing: lay the samples of a micro-batch in one row, without padding; the numbers stay the same.
        end_of_turn_ids: tokens after which nothing is generated.
        seed: of the draws.
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
    packing: bool = False
    end_of_turn_ids: Collection[int] = field(default_factory=frozenset)
    seed: int = 0


@dataclass
class Passes:
    """Hidden states of one step: ``main`` ``[B * S, D]`` and ``candidates`` ``[C, D]`` of both models."""

    student_main: Tensor
    teacher_main: Tensor | None
    student_candidates: Tensor | None = None
    teacher_candidates: Tensor | None = None
    layout: CandidateLayout | None = None
    attention: Tensor | None = None


class Objective:
    """Computes the losses of one micro-batch; call it inside the student's forward (see ``LlavaForCausalLM.forward``).

    Args:
        teacher: frozen, in eval mode, with the ``align_ti`` attention; both models see an image as equally many tokens.
        settings: see there.
        shared_tower: whether both models read the same vision tower, which then runs once.

    Raises:
        InputError: IVA without a layer.
    """

    def __init__(self, teacher: PreTrainedModel, settings: ObjectiveSettings, shared_tower: bool = False) -> None:
        if "iva" in settings.weights and settings.iva_layer is None:
            raise InputError("iva is among the losses but no layer was chosen for its weights")
        self.teacher = teacher
        self.settings = settings
        self.shared_tower = shared_tower

    def __call__(
        self,
        student: PreTrainedModel,
        batch: Mapping[str, Any],
        tokens: Tensor,
        iva_samples: Tensor,
        step: int = 0,
    ) -> dict[str, Tensor]:
        """The loss of one micro-batch and its terms.

        Args:
            student: the model being trained, with the ``align_ti`` attention.
            batch: as the collator makes it.
            tokens: supervised tokens of the global batch: the denominator of ``sft``, ``kd`` and ``tpa``.
            iva_samples: samples of the global batch with an image and an instruction: the denominator of ``iva``.
            step: number of the optimizer step; with the samples themselves it fixes the draws.

        Returns:
            ``loss`` (differentiable; the weighted sum), the detached unweighted terms by name, and with TPA
            ``candidate_rows``, the rows that ran, over ``tokens``. Sums over all micro-batches are the batch's values.
        """
        student_inputs, teacher_inputs = self.splice(student, batch)
        supervised = supervised_tokens(student_inputs.labels, student_inputs.attention_mask)
        noise = None
        if "tpa" in self.settings.weights and self.settings.sampling != "greedy":
            per_sample = torch.bincount(supervised.sample, minlength=len(student_inputs.labels)).tolist()
            noise = draw_noise(
                batch["input_ids"],
                batch["attention_mask"],
                per_sample,
                self.settings.d,
                self.settings.seed,
                step,
            ).to(supervised.label.device)
        packing = None
        if self.settings.packing:
            student_inputs, packing = pack(student_inputs)
            teacher_inputs, _ = pack(teacher_inputs)
            supervised = supervised_tokens(student_inputs.labels, student_inputs.attention_mask)
        if self.settings.ribbon == "algorithm1":
            passes = self.run_algorithm1(student, student_inputs, teacher_inputs, supervised, noise)
        else:
            passes = self.run_prefix(student, student_inputs, teacher_inputs, supervised, noise, packing)
        return self.losses(student, student_inputs, supervised, passes, tokens, iva_samples)

    def splice(self, student: Any, batch: Mapping[str, Any]) -> tuple[SplicedBatch, SplicedBatch]:
        """Both models' inputs; a shared tower runs once."""
        teacher: Any = self.teacher
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
        self, model: Any, inputs: SplicedBatch, capture: AttentionCapture | None, packing: Packing | None = None
    ) -> Tensor:
        """Last hidden states ``[B, S, D]`` of the plain forward pass."""
        extra = {}
        if packing is not None:
            backend = resolve_backend(self.settings.backend, attention_dtype(inputs.inputs_embeds))
            extra = {"packed": packed_attention(packing, backend)}
        return model.model(
            inputs_embeds=inputs.inputs_embeds,
            attention_mask=inputs.attention_mask if packing is None else anything_4d(inputs.labels),
            position_ids=inputs.position_ids,
            use_cache=False,
            capture=capture,
            **extra,
        ).last_hidden_state

    def teacher_capture(
        self, inputs: SplicedBatch, keep_prefix: bool, packing: Packing | None = None
    ) -> AttentionCapture | None:
        """What the teacher's main pass has to leave behind."""
        maps = None
        if "iva" in self.settings.weights:
            assert self.settings.iva_layer is not None
            maps = MapRequest(
                frozenset([self.settings.iva_layer]),
                inputs.instruction_mask,
                inputs.attention_mask,
                None if packing is None else packing.spans,
            )
        return AttentionCapture(keep_prefix, maps) if keep_prefix or maps is not None else None

    def map_of(self, capture: AttentionCapture | None) -> Tensor | None:
        """The attention map of ``l*`` from a capture, ``[B, S]``."""
        if capture is None or "iva" not in self.settings.weights:
            return None
        assert self.settings.iva_layer is not None
        return capture.maps[self.settings.iva_layer]

    def run_prefix(
        self,
        student: Any,
        student_inputs: SplicedBatch,
        teacher_inputs: SplicedBatch,
        supervised: SupervisedTokens,
        noise: Tensor | None,
        packing: Packing | None = None,
    ) -> Passes:
        """Main passes that keep their keys and values, then the candidates alone."""
        tpa = "tpa" in self.settings.weights
        teacher_capture = self.teacher_capture(teacher_inputs, keep_prefix=tpa, packing=packing)
        with torch.no_grad():
            teacher_main = self.main_pass(self.teacher, teacher_inputs, teacher_capture, packing)
        student_capture = AttentionCapture(keep_prefix=True) if tpa else None
        student_main = self.main_pass(student, student_inputs, student_capture, packing)
        passes = Passes(student_main.flatten(0, 1), teacher_main.flatten(0, 1), attention=self.map_of(teacher_capture))
        if tpa:
            assert student_capture is not None and teacher_capture is not None
            passes.layout = self.candidates(student, student_inputs, supervised, passes, noise)
            passes.student_candidates, passes.teacher_candidates = transitions(
                student.model,
                self.teacher.model,
                student_capture,
                teacher_capture,
                passes.layout,
                student_inputs.attention_mask,
                self.settings.backend,
                None if packing is None else packing.bounds,
            )
        return passes

    def run_algorithm1(
        self,
        student: Any,
        student_inputs: SplicedBatch,
        teacher_inputs: SplicedBatch,
        supervised: SupervisedTokens,
        noise: Tensor | None,
    ) -> Passes:
        """The paper's procedure: a pass to draw from, then one interleaved pass of each model."""
        if "tpa" not in self.settings.weights:
            return self.run_prefix(student, student_inputs, teacher_inputs, supervised, noise)
        with torch.no_grad():
            drawing = Passes(self.main_pass(student, student_inputs, None).flatten(0, 1), None)
            capture = self.teacher_capture(teacher_inputs, keep_prefix=False)
            if capture is not None or self.settings.draws_from == "teacher":
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
            self.map_of(capture),
        )

    def candidates(
        self,
        student: Any,
        inputs: SplicedBatch,
        supervised: SupervisedTokens,
        passes: Passes,
        noise: Tensor | None,
    ) -> CandidateLayout:
        """Draw TPA's candidates from the main pass and lay them out."""
        settings = self.settings
        drawer, hidden = student, passes.student_main
        if settings.draws_from == "teacher":
            assert passes.teacher_main is not None
            drawer, hidden = self.teacher, passes.teacher_main
        draw = partial(
            draw_candidates,
            d=settings.d,
            method=settings.sampling,
            top_p=settings.top_p,
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
            end_of_turn_ids=settings.end_of_turn_ids,
            merge=settings.merge_draws,
            dtype=torch.float64 if hidden.dtype == torch.float64 else torch.float32,
        )

    def losses(
        self,
        student: Any,
        inputs: SplicedBatch,
        supervised: SupervisedTokens,
        passes: Passes,
        tokens: Tensor,
        iva_samples: Tensor,
    ) -> dict[str, Tensor]:
        """All terms from one pass of the weighted rows through both heads."""
        weights = self.settings.weights
        exact = torch.float64 if passes.student_main.dtype == torch.float64 else torch.float32
        places = len(passes.student_main)
        extra = 0 if passes.student_candidates is None else len(passes.student_candidates)
        terms = {name: inputs.inputs_embeds.new_zeros(places + extra, dtype=exact) for name in weights}
        for name in ("sft", "kd"):
            if name in terms:
                terms[name][supervised.predicting] = 1 / tokens.to(exact)
        if "iva" in terms:
            assert passes.attention is not None
            rows = iva_rows(passes.attention, inputs.visual_mask)
            terms["iva"][rows.index] = rows.weight.to(exact) / iva_samples.to(exact)
        if "tpa" in terms:
            assert passes.layout is not None
            terms["tpa"] = torch.cat([passes.layout.main_weight.flatten(), passes.layout.weight]).to(exact) / tokens.to(
                exact
            )
        targets = torch.full((places + extra,), IGNORE_INDEX, device=supervised.label.device)
        targets[supervised.predicting] = supervised.label
        nothing = torch.zeros_like(targets, dtype=exact)
        ce_weights = weights["sft"] * terms["sft"] if "sft" in terms else nothing
        divergence_weights = sum((weights[name] * terms[name] for name in terms if name != "sft"), start=nothing)
        used = ((ce_weights != 0) | (divergence_weights != 0)).nonzero().flatten()
        result = self.divergences(
            student,
            _rows(passes.student_main, passes.student_candidates, used),
            None if passes.teacher_main is None else _rows(passes.teacher_main, passes.teacher_candidates, used),
            weights=divergence_weights[used],
            targets=targets[used],
            ce_weights=ce_weights[used],
        )
        out = {"loss": result.loss}
        for name, weight in terms.items():
            values = result.cross_entropy if name == "sft" else result.divergence
            out[name] = (weight[used] * values).sum()
        if passes.layout is not None:
            ran = (passes.layout.weight > 0).sum() if self.settings.merge_draws else torch.tensor(len(passes.layout))
            out["candidate_rows"] = ran.to(tokens.device) / tokens
        return out

    def divergences(
        self, student: Any, student_rows: Tensor, teacher_rows: Tensor | None, **weights: Tensor
    ) -> LinearDivergence:
        """``linear_divergence`` of the rows, run inside both heads so that ZeRO-3 has their weights whole."""

        def both(hidden: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
            settings: dict[str, Any] = {
                "divergence": self.settings.divergence,
                "temperature": self.settings.temperature,
                **weights,
            }
            if teacher_rows is None:
                return tuple(linear_divergence(hidden, weight, **settings))
            return with_weight(
                self.teacher.lm_head,
                teacher_rows,
                lambda taught, head: tuple(linear_divergence(hidden, weight, taught, head, **settings)),
            )

        return LinearDivergence(*with_weight(student.lm_head, student_rows, both))


def iva_samples(batch: Mapping[str, Any]) -> Tensor:
    """Samples of a collated batch that IVA applies to: an image and an instruction. Integer scalar."""
    has_image = (batch["input_ids"] == IMAGE_TOKEN_INDEX).any(1)
    return (has_image & batch["instruction_mask"].any(1)).sum()


def _rows(main: Tensor, candidates: Tensor | None, used: Tensor) -> Tensor:
    """Rows ``used`` of main path and candidates laid one after the other, ``[R, D]``."""
    if candidates is None:
        return main[used]
    on_main = used[used < len(main)]
    beside = used[used >= len(main)] - len(main)
    return torch.cat([main[on_main], candidates[beside]])
