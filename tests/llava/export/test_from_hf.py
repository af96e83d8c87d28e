"""Imports: our own exports come back as they were, and a stranger's checkpoint gives transformers' logits."""

import json

import pytest
import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    SiglipVisionConfig,
)

from align_ti.training.teacher import check_same_tokenizer
from llava.errors import InputError
from llava.export.from_hf import import_from_hf
from llava.export.to_hf import export_to_hf
from llava.mm_utils import process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model
from tests.llava.export.conftest import CASES, LANGUAGE, SIDE, VISION, conversations
from tests.llava.export.test_to_hf import prompt_of


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_round_trip(exported, pictures, case, tmp_path):
    import_from_hf(str(exported.exports[case.name]), tmp_path / "back")
    tokenizer, model, processor, context = load_pretrained_model(exported.runs[case.name])
    tokenizer2, back, processor2, context2 = load_pretrained_model(tmp_path / "back")

    weights, weights2 = model.state_dict(), back.state_dict()
    assert weights.keys() == weights2.keys()
    assert all(torch.equal(weights[key], weights2[key]) for key in weights)
    assert (back.lm_head.weight is back.model.embed_tokens.weight) == case.tied
    assert context2 == context == 77
    assert back.config.mm_template == case.version
    assert back.config.mm_vision_select_layer == (case.layer or -4)
    assert back.config.image_aspect_ratio == (case.aspect or "square")
    for key in ("rope_parameters", "mm_vision_select_feature", "mm_use_im_start_end", "vocab_size", "head_dim"):
        assert getattr(back.config, key, None) == getattr(model.config, key, None), key
    check_same_tokenizer(tokenizer, tokenizer2, "before", "after")  # what distillation asks of teacher and student

    for turns, used, _ in conversations(pictures)[:4]:
        prompt = prompt_of(turns, case)
        ids = tokenizer_image_token(prompt, tokenizer, return_tensors="pt")[None]
        assert tokenizer_image_token(prompt, tokenizer2) == ids[0].tolist()
        opened = [Image.open(path) for path in used]
        images = process_images(opened, processor, model.config)
        images2 = process_images(opened, processor2, back.config)
        assert torch.equal(images, images2)
        with torch.no_grad():
            assert torch.equal(model(ids, images=images).logits, back(ids, images=images2).logits)


def test_export_again_gives_the_same_files(exported, tmp_path):
    """Ids stay: hf -> ours -> hf."""
    import_from_hf(str(exported.exports["grown"]), tmp_path / "back")
    export_to_hf(str(tmp_path / "back"), tmp_path / "again")
    for name in ("config.json", "processor_config.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "again" / name).read_text() == (exported.exports["grown"] / name).read_text(), name
    first, second = (AutoProcessor.from_pretrained(f) for f in (exported.exports["grown"], tmp_path / "again"))
    assert first.tokenizer.get_vocab() == second.tokenizer.get_vocab()


def test_the_folder_can_be_moved(exported, tmp_path):
    import_from_hf(str(exported.exports["clip"]), tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    _, model, _, _ = load_pretrained_model(tmp_path / "b")
    assert model.config.mm_vision_tower == str(tmp_path / "b" / "vision_tower")


def stranger(folder, tokenizer, vision=None, **config):
    """A checkpoint as others publish them: <image> and <pad> in the vocabulary, rows rounded up, CLIP's processor."""
    import copy

    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens(["<image>", "<pad>"], special_tokens=True)
    tokenizer.pad_token = "<pad>"
    torch.manual_seed(4)
    settings = LlavaConfig(
        **{
            "vision_config": vision or CLIPVisionConfig(**VISION),
            "text_config": LlamaConfig(**LANGUAGE, vocab_size=448, pad_token_id=401),
            "image_token_index": 400,
            "image_seq_length": 4,
            **config,
        }
    )
    model = LlavaForConditionalGeneration(settings).eval()
    model.save_pretrained(folder)
    images = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'][0]['text'] }}{% endfor %}"
    LlavaProcessor(
        images,
        tokenizer,
        patch_size=15,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    ).save_pretrained(folder)
    return model


def test_a_public_checkpoint_becomes_a_teacher(qwen_tokenizer, pictures, tmp_path, caplog):
    theirs = stranger(tmp_path / "hf", qwen_tokenizer)
    import_from_hf(str(tmp_path / "hf"), tmp_path / "ours")
    assert "with --version" in caplog.text
    tokenizer, model, processor, _ = load_pretrained_model(tmp_path / "ours")
    assert model.config.image_aspect_ratio == "square"
    assert not hasattr(model.config, "mm_template")
    assert model.config.vocab_size == 448
    check_same_tokenizer(tokenizer, qwen_tokenizer, "teacher", "student")
    prompt = "USER: <image>\nWhat is in the picture? ASSISTANT:"
    loaded = AutoProcessor.from_pretrained(tmp_path / "hf", backend="pil")
    for path in pictures:
        inputs = loaded(text=prompt, images=Image.open(path), return_tensors="pt")
        ids = tokenizer_image_token(prompt, tokenizer, return_tensors="pt")[None]
        images = process_images([Image.open(path)], processor, model.config)
        with torch.no_grad():
            torch.testing.assert_close(model(ids, images=images).logits, theirs(**inputs).logits)
    import_from_hf(str(tmp_path / "hf"), tmp_path / "named", version="v1", dtype=torch.bfloat16)
    _, model, _, _ = load_pretrained_model(tmp_path / "named")
    assert model.config.mm_template == "v1" and model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"vision_feature_layer": [-2, -1]}, "vision_feature_layer .* one layer only"),
        ({"projector_hidden_act": "relu"}, "projector with 'relu' and bias True"),
        ({"multimodal_projector_bias": False}, "bias False"),
        ({"vision": SiglipVisionConfig(**VISION)}, "'default' with a SigLIP tower"),
    ],
)
def test_shapes_that_this_package_lacks_are_refused(qwen_tokenizer, tmp_path, config, message):
    stranger(tmp_path / "hf", qwen_tokenizer, **config)
    with pytest.raises(InputError, match=message):
        import_from_hf(str(tmp_path / "hf"), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_other_models_are_refused(exported, tmp_path):
    with pytest.raises(InputError, match="of model type 'llava_qwen2'; expected transformers' 'llava'"):
        import_from_hf(str(exported.runs["spare-rows"]), tmp_path / "ours")
    with pytest.raises(InputError, match="no readable config.json"):
        import_from_hf(str(tmp_path), tmp_path / "ours")
    with pytest.raises(InputError, match="unknown prompt template"):
        import_from_hf(str(exported.exports["grown"]), tmp_path / "ours", version="nonsense")


def test_missing_weights_are_noticed(exported, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(exported.exports["grown"], tmp_path / "hf")
    weights = load_file(tmp_path / "hf" / "model.safetensors")
    del weights["multi_modal_projector.linear_2.bias"]
    save_file(weights, tmp_path / "hf" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="lacks 1 weights.*linear_2.bias"):
        import_from_hf(str(tmp_path / "hf"), tmp_path / "ours")


def test_other_preprocessing_is_refused(exported, tmp_path):
    import shutil

    shutil.copytree(exported.exports["clip"], tmp_path / "hf")
    for name in ("processor_config.json", "preprocessor_config.json"):
        content = json.loads((tmp_path / "hf" / name).read_text())
        settings = content.get("image_processor", content)
        settings.update(size={"shortest_edge": SIDE}, crop_size={"height": 16, "width": 16}, do_pad=True)
        settings["image_processor_type"] = "LlavaNextImageProcessor"
        (tmp_path / "hf" / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match="different pixels for an image of"):
        import_from_hf(str(tmp_path / "hf"), tmp_path / "ours")
