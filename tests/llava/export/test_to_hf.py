"""Exports against this package: the same ids, logits and answers in plain transformers."""

import json

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, GenerationConfig

from llava.conversation import get_template
from llava.errors import InputError
from llava.export.__main__ import main
from llava.export.to_hf import export_to_hf
from llava.export.weights import grow
from llava.inference.end_of_turn import EndOfTurn
from llava.mm_utils import process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model
from llava.model.lora import add_lora, save_lora
from tests.llava.export.conftest import CASES, Case, conversations


def prompt_of(turns, case: Case) -> str:
    text = get_template(case.version).prompt(turns)
    return text.replace("<image>", "<im_start><image><im_end>") if case.start_end else text


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_plain_transformers_gives_the_same(exported, pictures, case):
    tokenizer, model, processor, _ = load_pretrained_model(exported.runs[case.name])
    rows, visual = model.config.vocab_size, model.get_vision_tower().num_patches
    stop = EndOfTurn.of(get_template(case.version), tokenizer, model)
    answers = []
    assert exported.results[case.name] == "LlavaForConditionalGeneration"
    for index, (turns, used, _) in enumerate(conversations(pictures)):
        ids = tokenizer_image_token(prompt_of(turns, case), tokenizer, return_tensors="pt")[None]
        images = process_images([Image.open(path) for path in used], processor, model.config)
        with torch.no_grad():
            want = model(ids, images=images).logits
        greedy = {"do_sample": False, "repetition_penalty": 1.0, "eos_token_id": stop.ids}
        answer = model.generate(ids, images=images, max_new_tokens=12, **greedy)
        got = exported.results[case.name, index]
        assert got["ids"].shape[1] == ids.shape[1] + len(used) * (visual - 1)
        assert (got["ids"] == got["ids"].max()).sum() == len(used) * visual
        torch.testing.assert_close(got["logits"][..., :rows], want, atol=1e-5, rtol=1e-5)
        assert torch.equal(got["answer"], answer)
        answers.append(tuple(answer[0].tolist()))
    assert len(set(answers)) > 3  # the pictures and questions matter


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_config(exported, case):
    config = json.loads((exported.exports[case.name] / "config.json").read_text())
    clip = case.tower == "clip"
    assert config["architectures"] == ["LlavaForConditionalGeneration"]
    assert config["vision_feature_layer"] == (case.layer or -4)
    assert config["vision_feature_select_strategy"] == ("default" if clip and case.feature == "patch" else "full")
    assert config["image_seq_length"] == 4 + (case.feature == "cls_patch")
    assert config["vision_config"]["num_hidden_layers"] == 3
    assert config["text_config"]["model_type"] == case.family
    assert config["tie_word_embeddings"] == case.tied
    assert not [key for key in (*config, *config["text_config"]) if key.startswith("mm_")]
    assert str(exported.runs[case.name].parent) not in json.dumps(config)  # no path of this machine


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_embedding_grows_only_where_there_is_no_row(exported, case):
    _, model, _, _ = load_pretrained_model(exported.runs[case.name])
    config = json.loads((exported.exports[case.name] / "config.json").read_text())
    rows, image_token = model.config.vocab_size, config["image_token_index"]
    assert config["text_config"]["vocab_size"] == max(rows, image_token + 1)
    assert (image_token == rows) == (not case.spare_rows and not case.start_end) or case.start_end


def test_weights_are_named_as_in_public_checkpoints(exported):
    """What servers map from: the spelling of the published LLaVA checkpoints."""
    for name, tied in (("grown", False), ("spare-rows", True)):
        with safe_open(exported.exports[name] / "model.safetensors", "pt") as file:
            keys = set(file.keys())
        assert "language_model.model.embed_tokens.weight" in keys
        assert "multi_modal_projector.linear_1.weight" in keys
        assert ("language_model.lm_head.weight" in keys) == (not tied)
        assert {key.split(".")[0] for key in keys} == {"language_model", "multi_modal_projector", "vision_tower"}


def test_generation_settings(exported, qwen_tokenizer):
    end = qwen_tokenizer.convert_tokens_to_ids("<|im_end|>")
    chatml = GenerationConfig.from_pretrained(exported.exports["grown"])
    assert set(chatml.eos_token_id) == {qwen_tokenizer.eos_token_id, end}
    assert chatml.pad_token_id == qwen_tokenizer.pad_token_id
    assert not chatml.do_sample and chatml.repetition_penalty in (None, 1.0)
    assert GenerationConfig.from_pretrained(exported.exports["spare-rows"]).eos_token_id == qwen_tokenizer.eos_token_id


def test_stop_string_that_is_no_token(exported, tmp_path, caplog):
    done = export_to_hf(str(exported.runs["clip"]), tmp_path / "hf")
    assert done.stop_string == "</s>" and "stop_strings=['</s>']" in caplog.text
    done = export_to_hf(str(exported.runs["sentencepiece"]), tmp_path / "hf2")
    assert done.stop_string is None and done.starts_with_bos


def test_a_new_row_never_wins():
    torch.manual_seed(0)
    table = torch.randn(50, 8) - 3 * torch.ones(8)
    grown = grow(table, 53, 40)
    assert torch.equal(grown[:50], table) and grown.shape == (53, 8)
    hidden = torch.randn(500, 8) + 1
    logits = hidden @ grown.T
    assert (logits[:, :40].max(dim=-1).values < 0).any()  # a row of zeros would have won here
    assert (logits.argmax(dim=-1) < 50).all()
    assert grow(table, 20, 20) is table


def test_tower_weights_of_the_checkpoint_come_along(checkpoint, tmp_path, pictures):
    """A checkpoint that carries a tuned tower is exported with it, upper layers included."""
    from safetensors.torch import load_file, save_file

    run = checkpoint()
    _, model, _, _ = load_pretrained_model(run)
    weights = load_file(run / "model.safetensors")
    tuned = {f"model.vision_tower.vision_tower.vision_model.{k}": v * 1.5 for k, v in _whole(model).items()}
    save_file({**weights, **tuned}, run / "model.safetensors", metadata={"format": "pt"})
    export_to_hf(str(run), tmp_path / "hf")
    stored = load_file(tmp_path / "hf" / "model.safetensors")
    found = {
        key.split("vision_tower.")[1].removeprefix("vision_model."): key for key in stored if "vision_tower" in key
    }
    assert len([key for key in found if "layers.2." in key]) > 5
    for key, value in tuned.items():
        torch.testing.assert_close(
            stored[found[key.removeprefix("model.vision_tower.vision_tower.vision_model.")]], value
        )


def _whole(model):
    from llava.export.to_hf import whole_tower

    return {k: v.clone() for k, v in whole_tower(model.get_vision_tower()).core.state_dict().items()}


def test_dtype(checkpoint, tmp_path):
    export_to_hf(str(checkpoint()), tmp_path / "hf", dtype=torch.bfloat16)
    with safe_open(tmp_path / "hf" / "model.safetensors", "pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.bfloat16}
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["dtype"] == "bfloat16"


def test_version_overrides_and_is_asked_for(checkpoint, tmp_path):
    run = checkpoint(mm_template=None)
    with pytest.raises(InputError, match="does not say which prompt template.*--version"):
        export_to_hf(str(run), tmp_path / "hf")
    assert not (tmp_path / "hf").exists()
    assert export_to_hf(str(run), tmp_path / "hf", version="chatml").template == "qwen_2"
    with pytest.raises(InputError, match="unknown prompt template 'nonsense'"):
        export_to_hf(str(run), tmp_path / "hf2", version="nonsense")


@pytest.mark.parametrize("projector", ["linear", "mlp3x_gelu"])
def test_other_projectors_are_refused(checkpoint, tmp_path, projector):
    with pytest.raises(InputError, match=f"type '{projector}'.*one shape only.*--mm_projector_type mlp2x_gelu"):
        export_to_hf(str(checkpoint(projector=projector)), tmp_path / "hf")


@pytest.mark.parametrize("tower", ["timm:vit_base_patch16_224", "open_clip:ViT-B-32"])
def test_other_towers_are_refused(checkpoint, tmp_path, tower):
    run = checkpoint()
    config = json.loads((run / "config.json").read_text()) | {"mm_vision_tower": tower}
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="SigLIP and CLIP towers only"):
        export_to_hf(str(run), tmp_path / "hf")


@pytest.fixture
def adapter(checkpoint, tmp_path):
    """A checkpoint and a trained adapter of it."""
    run, folder = checkpoint(), tmp_path / "adapter"
    tokenizer, model, _, _ = load_pretrained_model(run)
    add_lora(model, str(run), r=2, alpha=4, dropout=0.0, bias="none")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.normal_(std=0.3)
    save_lora(model, folder)
    tokenizer.save_pretrained(folder)
    return run, folder


def test_adapters_are_merged(adapter, tmp_path):
    """Into transformers' form and into a whole checkpoint of LLaVA's layout; both have the adapter's logits."""
    run, folder = adapter
    ids = torch.tensor([[5, 7, 9, 11]])
    with torch.no_grad():
        want, base = (load_pretrained_model(path)[1](ids).logits for path in (folder, run))
        main(["--to", "llava", "--model_path", str(folder), "--output", str(tmp_path / "whole")])
        whole = load_pretrained_model(tmp_path / "whole")[1](ids).logits
        main(["--to", "hf", "--model_path", str(folder), "--output", str(tmp_path / "hf")])
        made = AutoModelForImageTextToText.from_pretrained(tmp_path / "hf")(ids).logits
    assert not list((tmp_path / "whole").glob("adapter*"))
    assert (want - base).abs().max() > 0.1, "the adapter matters"
    torch.testing.assert_close(whole, want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(made[..., : want.shape[-1]], want, atol=1e-5, rtol=1e-5)


def test_image_token_of_the_tokenizer_keeps_its_id(checkpoint, tokenizers, tmp_path):
    import copy

    tokenizer = copy.deepcopy(tokenizers["qwen"])
    tokenizer.add_tokens(["<image>", "<later>"], special_tokens=True)
    run = checkpoint(Case("x", spare_rows=8))
    tokenizer.save_pretrained(run)
    export_to_hf(str(run), tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["image_token_index"] == len(tokenizer) - 2
