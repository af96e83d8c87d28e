"""The methods a benchmark compares, each as a function that runs forward and backward of one batch.

They go through the same ``Objective`` as training. Two things are synthetic: the batch (random embeddings, so no
tower runs), and the draws, which are replaced after they were computed, so that merging leaves the number of rows asked
for instead of the number that random weights would give.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, PreTrainedModel, Qwen2Config

from align_ti.attention.interface import NAME
from align_ti.candidates.layout import CandidateLayout, candidate_layout
from align_ti.config import ObjectiveConfig
from align_ti.losses.batch import Counts, MicroBatch, Passes
from align_ti.objective import Objective
from align_ti.studies.cost.sizes import Decoder, Geometry
from align_ti.studies.cost.uncomputed import hollow
from llava.constants import IGNORE_INDEX
from llava.model.fused_layers import fuse_layers
from llava.model.language import language_model_class
from llava.model.protocol import VisionLanguageModel
from llava.model.splice import SplicedBatch


def build_decoder(shape: Decoder, dtype: torch.dtype, device: torch.device, seed: int) -> PreTrainedModel:
    """A Qwen2-shaped model with random weights and the capturing attention."""
    model_class = language_model_class("qwen2")
    fields = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=shape.tied,
    ).to_dict()
    fields.pop("model_type")
    config = model_class.config_class(**fields)
    config._attn_implementation = NAME
    torch.manual_seed(seed)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return model_class(config)
    finally:
        torch.set_default_dtype(previous)


def build_batch(geometry: Geometry, hidden: int, device: torch.device, seed: int = 0) -> SplicedBatch:
    """A batch of random embeddings, padded on the right. Labels depend on ``seed`` alone."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [geometry.prompt + response for response in geometry.responses]
    shape = len(lengths), max(lengths)
    vocabulary = min(geometry.teacher.vocabulary, geometry.student.vocabulary)
    ids = torch.randint(vocabulary, shape, generator=generator)
    columns = torch.arange(shape[1])
    real = columns < torch.tensor(lengths)[:, None]
    before = geometry.prompt - geometry.instruction
    return SplicedBatch(
        inputs_embeds=torch.randn(*shape, hidden, dtype=geometry.dtype, device=device),
        attention_mask=real.to(device),
        position_ids=columns.expand(shape).to(device),
        labels=torch.where(real & (columns >= geometry.prompt), ids, IGNORE_INDEX).to(device),
        instruction_mask=(real & (columns >= before) & (columns < geometry.prompt)).to(device),
        visual_mask=(real & (columns >= before - geometry.visual) & (columns < before)).to(device),
        right_padded=True,
    )


def chosen_draws(labels: Tensor, d: int, rows: float, vocabulary: int) -> Tensor:
    """Draws ``[L, d]`` of which merging leaves ``rows`` per step on average; the others equal the label."""
    steps = torch.arange(len(labels), device=labels.device)
    wanted = ((steps + 1) * rows).floor() - (steps * rows).floor()
    others = (labels[:, None] + 1 + torch.arange(d, device=labels.device)) % vocabulary
    return torch.where(torch.arange(d, device=labels.device) < wanted[:, None], others, labels[:, None])


class BenchObjective(Objective):
    """An objective over a synthetic batch.

    Attributes:
        head_flops: FLOPs of the heads, with their backward, that ``evaluate`` counted while ``counter`` was set.
    """

    def __init__(
        self,
        teacher: VisionLanguageModel,
        config: ObjectiveConfig,
        geometry: Geometry,
        batches: tuple[SplicedBatch, SplicedBatch],
    ) -> None:
        super().__init__(teacher, config)
        self.geometry = geometry
        self.batches = batches
        self.counter: FlopCounterMode | None = None
        self.head_flops = 0

    def splice(self, student: VisionLanguageModel, batch: Mapping[str, Any]) -> tuple[SplicedBatch, SplicedBatch]:
        """The made-up batch of each model; the student's embeddings take gradients, as from its projector."""
        learnt, taught = self.batches
        embeds = learnt.inputs_embeds.detach().requires_grad_().clone()  # no leaf: the FLOP counter's hooks need it
        return replace(learnt, inputs_embeds=embeds), taught

    def candidates(
        self,
        student: VisionLanguageModel,
        batch: MicroBatch,
        passes: Passes,
        noise: Tensor | None,
    ) -> CandidateLayout:
        """Draw as always, then lay out chosen draws in their place."""
        super().candidates(student, batch, passes, noise)
        assert self.drawing is not None
        merge, d = self.config.ribbon.merge_draws, self.drawing.d
        rows = self.geometry.rows if merge else d
        vocabulary = min(self.geometry.teacher.vocabulary, self.geometry.student.vocabulary)
        return candidate_layout(
            batch.listed,
            chosen_draws(batch.listed.label, d, rows, vocabulary),
            batch.host.attention_mask,
            batch.host.position_ids,
            merge=merge,
        )

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Count the heads' FLOPs on the way."""
        before = self.counter.get_total_flops() if self.counter else 0
        out = super().evaluate(*args, **kwargs)
        self.head_flops = (self.counter.get_total_flops() if self.counter else 0) - before
        return out


METHODS: dict[str, dict[str, Any]] = {
    "vanilla_kd": {"losses": ("sft", "kd")},
    "kd_iva": {"losses": ("sft", "kd", "iva")},
    "algorithm1": {"losses": ("sft", "kd", "tpa"), "ribbon": "algorithm1", "merge_draws": False},
    "prefix": {"losses": ("sft", "kd", "tpa"), "merge_draws": False},
    "prefix_merged": {"losses": ("sft", "kd", "tpa")},
    "align_ti": {"losses": ("sft", "kd", "iva", "tpa")},
    "align_ti_128": {"losses": ("sft", "kd", "iva", "tpa"), "iva_rows": 128},
    "gkd": {"losses": ("kd",)},
}
"""What is measured, by name: losses of each, and flags of its ribbon. ``gkd`` distils on responses that the student
generates. ``align_ti_128`` estimates IVA from 128 visual tokens of a sample."""


class Bench:
    """Models, batch and methods at one geometry.

    Args:
        geometry: Sizes of models and batch.
        device: Where to run.
        backend: Backend of the ribbon attention.
        packing: Run ``prefix*``, ``vanilla_kd``, ``kd_iva`` and ``align_ti`` without padding.
        checkpointing: Use activation checkpointing in the student.
        compile_losses: See ``ObjectiveConfig``.
        fused: Whether the layers of both models are fused, where that runs; see ``fuse_layers``.
        computed: Whether the models have weights; without, only FLOPs can be counted, see ``uncomputed``.
    """

    def __init__(
        self,
        geometry: Geometry,
        device: torch.device,
        backend: str = "auto",
        packing: bool = False,
        checkpointing: bool = False,
        compile_losses: bool = False,
        fused: bool = False,
        computed: bool = True,
    ) -> None:
        self.geometry, self.device = geometry, device
        home = device if computed else torch.device("meta")
        teacher, student = (
            build_decoder(shape, geometry.dtype, home, seed)
            for shape, seed in ((geometry.teacher, 1), (geometry.student, 0))
        )
        if not computed:
            teacher, student = hollow(teacher), hollow(student)
        self.teacher, self.student = teacher.eval().requires_grad_(False), student.train()
        if fused:
            fuse_layers(self.teacher, device)
            fuse_layers(self.student, device)
        if checkpointing:
            self.student.gradient_checkpointing_enable({"use_reentrant": False})
        self.batches = (
            build_batch(geometry, geometry.student.hidden, device),
            build_batch(geometry, geometry.teacher.hidden, device),
        )
        self.objectives = {name: self._objective(name, backend, packing, compile_losses) for name in METHODS}

    def _objective(self, name: str, backend: str, packing: bool, compile_losses: bool) -> BenchObjective:
        method = dict(METHODS[name])
        flags = {
            "iva_layer": self.geometry.teacher.layers // 2,
            "tpa_d": self.geometry.d,
            "tpa_sampling": "greedy",  # no noise to make; drawing the d likeliest tokens goes through the same head
            "ribbon_backend": backend,
            "compile_losses": compile_losses,
            "packing": packing and name not in ("algorithm1", "gkd"),
        }
        config = ObjectiveConfig.of_flags(method.pop("losses"), {**flags, **method})
        return BenchObjective(self.teacher, config, self.geometry, self.batches)

    def step(self, name: str) -> Callable[[], Tensor]:
        """A function that runs one forward and backward pass of a method and returns its loss."""
        objective = self.objectives[name]
        tokens = torch.tensor(float(sum(self.geometry.responses)), device=self.device)
        samples = torch.tensor(float(len(self.geometry.responses)), device=self.device)
        batch = {"sample_index": torch.arange(len(self.geometry.responses), device=self.device)}

        def run() -> Tensor:
            if name == "gkd":
                generate(self.student, self.batches[0], self.geometry.prompt, max(self.geometry.responses))
            loss = objective(self.student, batch, Counts(tokens, samples, samples))["loss"]
            loss.backward()
            self.student.zero_grad(set_to_none=True)
            return loss.detach()

        return run


@torch.no_grad()
def generate(student: VisionLanguageModel, batch: SplicedBatch, prompt: int, length: int) -> Tensor:
    """Sample ``length`` tokens after each prompt, with a cache: ``[B, length]``. GKD trains on such responses."""
    student.eval()
    cache, hidden, tokens = DynamicCache(config=student.config), batch.inputs_embeds[:, :prompt], []
    for position in range(length):
        first = 0 if position == 0 else prompt + position - 1
        places = torch.arange(first, first + hidden.shape[1], device=hidden.device)[None]
        states = student.model(
            inputs_embeds=hidden, position_ids=places, past_key_values=cache, use_cache=True
        ).last_hidden_state
        tokens.append(torch.multinomial(student.lm_head(states[:, -1]).float().softmax(-1), 1))
        hidden = student.get_input_embeddings()(tokens[-1])
    student.train()
    return torch.cat(tokens, dim=1)
