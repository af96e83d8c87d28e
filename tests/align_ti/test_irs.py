"""IRS: the score against its definition, and the vectors against eager attention of a real LLaVA model."""

import json

import pytest
import torch
from torch.nn.functional import cosine_similarity

from align_ti.attention.interface import use_align_ti_attention
from align_ti.irs import LayerScores, choose_layer, instruction_relevance_scores, irs, layer_vectors
from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import InputError
from llava.model import language_model_class


def test_score_against_the_expectation_over_all_pairs():
    torch.manual_seed(0)
    vectors = torch.rand(6, 3, 5, dtype=torch.float64) ** torch.tensor([0.1, 1.0, 4.0])[:, None]
    pairs = [(one, two) for one in range(6) for two in range(6) if one != two]
    expected = 1 - torch.stack([cosine_similarity(vectors[one], vectors[two], dim=-1) for one, two in pairs]).mean(0)
    scores = irs(vectors, pairs=20_000, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(scores, expected, atol=0.01, rtol=0)
    assert expected.argsort().tolist() == [0, 1, 2]
    assert choose_layer(scores) == 2


def test_known_scores():
    alike = torch.tensor([1.0, 2.0, 3.0]).expand(4, 1, 3)  # every input looks at the same places
    apart = torch.eye(4)[:, None]  # every input looks elsewhere
    torch.testing.assert_close(irs(alike), torch.zeros(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(irs(apart), torch.ones(1))  # an input is never paired with itself
    assert choose_layer(torch.tensor([0.1, 0.7, 0.7, 0.2])) == 1
    with pytest.raises(InputError, match="at least 2 inputs"):
        irs(apart[:1])
    with pytest.raises(InputError, match="1 pair"):
        irs(apart, pairs=0)


@pytest.fixture
def model(world):
    torch.manual_seed(0)
    built = language_model_class("qwen2").from_pretrained(world.teacher_lm)
    built.initialize_vision_modules(str(world.tower), mm_projector_type="mlp2x_gelu", mm_vision_select_layer=-1)
    for parameter in built.model.mm_projector.parameters():
        parameter.data *= 5
    built.eval()
    use_align_ti_attention(built)
    return built


KINDS = ["sviiirr", "siirr", "svviirr", "svrrr", "siviirr"]
"""One image; text only; two images; an image but no instruction; one image within the instruction."""


@pytest.fixture
def make_collated():
    """Batches as the collator makes them; ``v`` is an image marker, ``i`` an instruction token."""

    def build(kinds=tuple(KINDS), seed=0):
        torch.manual_seed(seed)
        length = max(map(len, kinds))
        ids = torch.randint(5, 200, (len(kinds), length))
        batch = {
            "input_ids": ids,
            "labels": torch.full_like(ids, -100),
            "attention_mask": torch.zeros_like(ids, dtype=torch.bool),
            "instruction_mask": torch.zeros_like(ids, dtype=torch.bool),
        }
        for row, kind in enumerate(kinds):
            for column, letter in enumerate(kind):
                batch["attention_mask"][row, column] = True
                batch["instruction_mask"][row, column] = letter == "i"
                if letter == "v":
                    ids[row, column] = IMAGE_TOKEN_INDEX
                if letter == "r":
                    batch["labels"][row, column] = ids[row, column]
        images = sum(kind.count("v") for kind in kinds)
        if images:
            batch["images"] = torch.randn(images, 3, 32, 32)
        return batch

    return build


def test_vectors_of_suitable_samples_against_eager_attention(model, make_collated):
    batch = make_collated()
    vectors = layer_vectors(model, batch)
    assert vectors.shape == (2, 3, 4)  # samples 0 and 4, three layers, four visual tokens
    spliced = model.splice_inputs(**batch)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        eager = model.model(
            inputs_embeds=spliced.inputs_embeds, attention_mask=spliced.attention_mask,
            position_ids=spliced.position_ids, output_attentions=True, use_cache=False,
        ).attentions  # fmt: skip
    for found, sample in zip(vectors, (0, 4), strict=True):
        rows, columns = spliced.instruction_mask[sample], spliced.visual_mask[sample]
        for layer in range(3):
            expected = eager[layer][sample].mean(0)[rows].mean(0)[columns]
            torch.testing.assert_close(found[layer], expected, atol=1e-6, rtol=1e-5)


def test_switching_the_attention_leaves_the_tower_alone(model, make_collated):
    images = make_collated()["images"]
    ours = model.vision_features(images)
    model.set_attn_implementation("sdpa")
    assert torch.equal(ours, model.vision_features(images))


def test_runner_chooses_and_saves(model, make_collated, tmp_path):
    batches = [make_collated(seed=seed) for seed in range(4)] + [make_collated(("siirr",))]
    result = instruction_relevance_scores(model, batches, pairs=50, progress=False)
    vectors = torch.cat([layer_vectors(model, batch) for batch in batches[:4]])
    scores = irs(vectors, 50, torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.tensor(result.scores), scores, atol=1e-6, rtol=0)
    assert (result.layer, result.inputs, result.pairs) == (choose_layer(scores), 8, 50)
    assert instruction_relevance_scores(model, batches, pairs=50, max_inputs=5, progress=False).inputs == 5
    file = tmp_path / "irs.json"
    result.save(file)
    assert json.loads(file.read_text())["layer"] == result.layer
    assert LayerScores.load(file) == result
    file.write_text("[]")
    with pytest.raises(InputError, match="not a file of layer scores"):
        LayerScores.load(file)
    with pytest.raises(InputError, match="missing.json"):
        LayerScores.load(tmp_path / "missing.json")


def test_too_few_inputs(model, make_collated):
    with pytest.raises(InputError, match="found 1 inputs"):
        instruction_relevance_scores(model, [make_collated(("sviirr", "siirr"))], progress=False)
    assert layer_vectors(model, make_collated(("siirr",))).shape == (0, 3, 0)


def test_the_attention_must_be_ours(model, make_collated):
    model.set_attn_implementation("sdpa")
    with pytest.raises(InputError, match="needs 'align_ti'"):
        layer_vectors(model, make_collated())


def test_no_progress_bar_without_a_terminal(model, make_collated, capfd):
    instruction_relevance_scores(model, [make_collated(seed=seed) for seed in range(3)], pairs=5, max_inputs=4)
    assert "IRS" not in capfd.readouterr().err
