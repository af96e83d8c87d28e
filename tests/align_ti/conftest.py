"""Tiny language models of every family, and batches with all the shapes that matter."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from align_ti.attention.interface import NAME
from align_ti.losses.forward_kl import check_compiler
from align_ti.training import train as distill
from llava.errors import InputError
from llava.model import language_model_class
from tests.runs import COMMON

FAMILIES = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 6}),
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
}


def exact_norms(model: nn.Module) -> None:
    """Replace transformers' RMSNorm, which rounds to float32, by one of the model's own precision."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                norm = nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon, dtype=child.weight.dtype)
                norm.weight.data.copy_(child.weight.data)
                setattr(module, name, norm)


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skips where ``torch.compile`` does not run."""
    try:
        check_compiler(torch.device("cpu"))
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(params=list(FAMILIES))
def family(request) -> str:
    return request.param


@pytest.fixture
def tiny_model() -> Callable[..., PreTrainedModel]:
    """Build a random model: ``tiny_model(family, vocab=.., hidden=.., layers=.., heads=.., kv_heads=..)``."""

    def build(
        family: str = "qwen2",
        *,
        vocab: int = 31,
        hidden: int = 24,
        layers: int = 2,
        heads: int = 4,
        kv_heads: int = 2,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        attention: str = NAME,
        exact: bool = True,
        llava: bool = False,
    ) -> PreTrainedModel:
        config_class, model_class, extra = FAMILIES[family]
        if llava:
            model_class = language_model_class(family)
            config_class = model_class.config_class
        config = config_class(
            vocab_size=vocab,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            max_position_embeddings=256,
            initializer_range=0.3,
            tie_word_embeddings=False,
            pad_token_id=0,
            **extra,
        )
        config._attn_implementation = attention
        torch.manual_seed(seed)
        model = model_class(config).to(dtype)
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):  # ones and zeros would hide errors
                parameter.data += 0.2 * torch.randn(parameter.shape).to(dtype)
        if exact:
            exact_norms(model)
        return model.eval()

    return build


@dataclass
class Batch:
    """A padded batch; ``visual_mask`` marks places that hold visual embeddings instead of token ones."""

    ids: Tensor
    labels: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    visual_mask: Tensor
    instruction_mask: Tensor

    def embed(self, model: PreTrainedModel, visual: Tensor) -> Tensor:
        """``[B, S, D]`` with ``visual [n, D]`` at the visual places."""
        embeds = model.get_input_embeddings()(self.ids)
        return embeds.masked_scatter(self.visual_mask[..., None], visual)


END = 2
"""Id that ends a turn in the test batches."""

# One character a token: s system or role, v visual, i instruction, r response, E its end of turn.
SAMPLES = {
    "image": "ssvvvviiisrrrE",
    "turns": "sivvvissrrEsiisrrrr",  # two turns, the last one cut off before its end
    "text": "siisrE",
    "two_images": "svviivvisrrrrrE",
}


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """``make_batch(side, vocab, names)``: the samples above, padded on one side."""

    def build(side: str = "right", vocab: int = 31, names: tuple[str, ...] = tuple(SAMPLES), seed: int = 1) -> Batch:
        torch.manual_seed(seed)
        kinds = [SAMPLES[name] for name in names]
        length = max(map(len, kinds)) + 1  # no sample fills the row
        shape = len(kinds), length
        ids = torch.randint(3, vocab, shape)
        mask, visual, instruction, target = (torch.zeros(shape, dtype=torch.bool) for _ in range(4))
        for row, kind in enumerate(kinds):
            start = 0 if side == "right" else length - len(kind)
            mask[row, start : start + len(kind)] = True
            for offset, letter in enumerate(kind, start):
                visual[row, offset] = letter == "v"
                instruction[row, offset] = letter == "i"
                target[row, offset] = letter in "rE"
                if letter == "E":
                    ids[row, offset] = END
        ids[~mask] = 0
        labels = torch.where(target, ids, -100)
        position_ids = (mask.long().cumsum(1) - 1).clamp(min=0)
        return Batch(ids, labels, mask, position_ids, visual, instruction)

    return build


@pytest.fixture
def run(world, tuned_teacher, monkeypatch):
    """Run ``align_ti.training.train`` in this process: flags in, log out."""

    def run(output: Path, *flags: str) -> list[dict]:
        monkeypatch.setattr(
            "sys.argv",
            [
                "train",
                "--teacher_path",
                str(tuned_teacher),
                "--model_name_or_path",
                str(world.student_lm),
                "--vision_tower",
                str(world.tower),
                *COMMON,
                "--data_path",
                str(world.data),
                "--image_folder",
                str(world.images),
                "--output_dir",
                str(output),
                "--irs_inputs",
                "8",
                "--irs_pairs",
                "20",
                *flags,
            ],
        )
        distill.main()
        return json.loads((output / "trainer_state.json").read_text())["log_history"]

    return run
