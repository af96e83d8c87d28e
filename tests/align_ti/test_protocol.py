"""Losses, layer scores and maps ask no more of a model than the protocol of a vision-language model names."""

import pytest
import torch

from align_ti.attention.interface import use_align_ti_attention
from align_ti.attention.read import instruction_maps
from align_ti.config import ObjectiveConfig
from align_ti.irs import instruction_relevance_scores
from align_ti.losses.batch import Counts
from align_ti.losses.registry import LOSSES
from align_ti.objective import Objective
from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import get_template
from llava.data.annotations.table import open_annotations
from llava.data.collator import ConversationCollator
from llava.data.dataset import ConversationDataset
from llava.data.tokenize import TokenizedSample
from llava.model import language_model_class
from llava.model.protocol import vision_tower_of
from tests.protocol_only import ProtocolOnly


@pytest.fixture(scope="module")
def models(world):
    """Student and teacher in float64."""
    built = []
    for name in (world.student_lm, world.teacher_lm):
        model = language_model_class("qwen2").from_pretrained(name, dtype=torch.float64)
        torch.manual_seed(0)
        model.initialize_vision_modules(str(world.tower), mm_projector_type="mlp2x_gelu", mm_vision_select_layer=-1)
        use_align_ti_attention(model.eval())
        built.append(model)
    return built


@pytest.fixture(scope="module")
def data(world, models, qwen_tokenizer):
    tower = vision_tower_of(models[0])
    return ConversationDataset(
        open_annotations(str(world.data)),
        qwen_tokenizer,
        get_template("qwen"),
        image_processor=tower.image_processor,
        image_folder=world.images,
        visual_tokens=tower.num_patches,
    )


@pytest.fixture(scope="module")
def batch(data):
    return ConversationCollator(0)([data[index] for index in range(6)])


def bare(models):
    return [ProtocolOnly(model) for model in models]


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_an_objective_of_several_losses(models, batch, packing, shared):
    config = ObjectiveConfig.of_flags(["sft", "kd", "iva", "tpa"], {"iva_layer": 1, "tpa_d": 2, "packing": packing})
    counts = Counts(*map(torch.tensor, (40.0, 5.0, 5.0)))

    def losses(student, teacher):
        return Objective(teacher, config, shared_tower=shared)(student, batch, counts)

    found, expected = losses(*bare(models)), losses(*models)
    assert {"loss", "sft", "kd", "iva", "tpa"} <= found.keys() <= {*LOSSES, "loss", "candidate_rows"}
    assert {name: value.item() for name, value in found.items()} == {
        name: value.item() for name, value in expected.items()
    }


def test_layer_scores_and_maps(models, data, batch):
    def scores(model):
        return instruction_relevance_scores(model, [batch], pairs=20, max_inputs=6, seed=0).scores

    assert scores(bare(models)[1]) == scores(models[1])
    first = TokenizedSample(*(batch[name][0] for name in ("input_ids", "labels", "instruction_mask")), None)
    assert (first.input_ids == IMAGE_TOKEN_INDEX).sum() == 1
    maps = [
        instruction_maps(model, first, images=batch["images"][:1].double()) for model in (bare(models)[1], models[1])
    ]
    assert torch.equal(*maps) and maps[0].shape == (3, 2, 2)
