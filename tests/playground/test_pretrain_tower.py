"""The miniature's tower: scale, places of patches, and features that tell where something is."""

import pytest
import torch
from transformers import AutoTokenizer, SiglipConfig, SiglipModel, SiglipVisionModel

from playground.mini.base_models import read_texts, read_tower_records
from playground.mini.layout import PATCHES
from playground.mini.pretrain_tokenizer import train_tokenizer
from playground.mini.pretrain_tower import normalise_scale, place_weights, pretrain_tower
from playground.mini.wording import PLACES


@pytest.fixture(scope="module")
def trained(mini_build, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tower")
    train_tokenizer(read_texts(mini_build), folder / "tokenizer", 400)
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    records, names = read_tower_records(mini_build)
    figures = pretrain_tower(
        records, names, tokenizer, folder / "tower", image_size=80, hidden_size=32, layers=2, epochs=2, held_out=20
    )
    return folder / "tower", figures


def test_places_cover_their_quarter():
    weights = place_weights(PATCHES).reshape(len(PLACES), PATCHES, PATCHES)
    half = PATCHES // 2
    for index, (row, column) in enumerate(((0, 0), (0, half), (half, 0), (half, half))):
        expected = torch.zeros(PATCHES, PATCHES)
        expected[row : row + half, column : column + half] = 1 / half**2
        assert torch.equal(weights[index], expected)


def test_a_patch_between_places_is_shared():
    assert place_weights(3)[0].tolist() == pytest.approx([4 / 9, 2 / 9, 0, 2 / 9, 1 / 9, 0, 0, 0, 0])


def test_scale_changes_the_stream_and_nothing_else():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
    config = SiglipConfig(vision_config={**sizes, "image_size": 40, "patch_size": 10}, text_config=sizes)
    model = SiglipModel(config).double().eval()
    pixels = torch.randn(3, 3, 40, 40, dtype=torch.float64)
    # As after training: far larger than the layer norms' epsilon.
    model.vision_model.embeddings.position_embedding.weight.data.mul_(30)
    before = model.vision_model(pixel_values=pixels, output_hidden_states=True)
    normalise_scale(model, pixels)
    after = model.vision_model(pixel_values=pixels, output_hidden_states=True)
    assert before.hidden_states[-1].pow(2).mean() > 2
    assert after.hidden_states[-1].pow(2).mean().item() == pytest.approx(1, rel=1e-3)
    torch.testing.assert_close(after.pooler_output, before.pooler_output, rtol=1e-3, atol=1e-4)


def test_what_comes_out_is_a_siglip_with_figures(trained):
    folder, figures = trained
    tower = SiglipVisionModel.from_pretrained(folder)
    assert figures["parameters"] == sum(parameter.numel() for parameter in tower.parameters())
    assert 0 <= figures["recall"] <= 1 and figures["loss"] > 0


def test_patch_features_tell_their_place(trained):
    folder, _ = trained
    tower = SiglipVisionModel.from_pretrained(folder).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        states = tower(pixel_values=torch.randn(64, 3, 80, 80), output_hidden_states=True).hidden_states[-1]
    mean = states.mean((0, 1))
    of_places = (states.mean(0) - mean).pow(2).mean()
    # With 0.09 instead of POSITION_STD it is 0.02.
    assert of_places / (states - mean).pow(2).mean() > 0.1
