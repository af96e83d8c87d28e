"""The miniature's base models: made once each, in the formats users download, packed text without loss."""

import json
import math
import os

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, SiglipVisionModel

from llava.errors import InputError
from playground.mini.base_models import LANGUAGE_MODELS, build_base_models, read_texts
from playground.mini.pretrain_lm import PackedText

SMALL = {"tower_epochs": 0.2, "lm_epochs": {"teacher": 3.0, "student": 1.0}, "vocab_size": 400, "text_limit": 100}


@pytest.fixture(scope="module")
def made(mini_build):
    return mini_build / "models", build_base_models(mini_build, also=["student-llama-lm"], **SMALL)


def test_what_is_made_loads_as_what_a_user_downloads(made):
    folder, figures = made
    names = {"tokenizer", "tower", *LANGUAGE_MODELS, "student-llama-lm"}
    assert set(figures) == names == set(json.loads((folder / "figures.json").read_text()))
    tower = SiglipVisionModel.from_pretrained(folder / "tower")
    assert figures["tower"]["parameters"] == sum(parameter.numel() for parameter in tower.parameters())
    tokenizer = AutoTokenizer.from_pretrained(folder / "teacher-lm")
    assert tokenizer("A goat.").input_ids == AutoTokenizer.from_pretrained(folder / "student-lm")("A goat.").input_ids
    for name, kind in (("teacher-lm", "qwen2"), ("student-lm", "qwen2"), ("student-llama-lm", "llama")):
        model = AutoModelForCausalLM.from_pretrained(folder / name)
        assert model.config.model_type == kind and model.config.vocab_size >= len(tokenizer)
        assert figures[name]["parameters"] == model.num_parameters()
    sizes = [AutoConfig.from_pretrained(folder / name).vocab_size for name in ("teacher-lm", "student-lm")]
    assert [size % rows for size, rows in zip(sizes, (128, 64), strict=True)] == [0, 0]
    assert figures["teacher-lm"]["loss"] < math.log(len(tokenizer)), "three passes over the text taught it nothing"


def test_only_what_is_missing_is_made_again(made, mini_build):
    folder, figures = made
    files = {name: folder / name / "model.safetensors" for name in ("tower", *LANGUAGE_MODELS)}
    before = {name: os.stat(file).st_mtime_ns for name, file in files.items()}
    (folder / "student-lm" / "figures.json").unlink()  # as when it was killed while it saved
    again = build_base_models(mini_build, **SMALL)
    changed = [name for name, file in files.items() if os.stat(file).st_mtime_ns != before[name]]
    assert changed == ["student-lm"]
    assert again["student-lm"]["loss"] == pytest.approx(figures["student-lm"]["loss"], rel=1e-4), "from the same seed"


def test_without_data(tmp_path):
    with pytest.raises(InputError, match="contains no miniature; run `python -m playground.mini.build --out"):
        build_base_models(tmp_path, **SMALL)


def test_packed_text_is_the_documents_in_order(made, mini_build):
    folder, _ = made
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    texts = read_texts(mini_build, 7)
    assert len(texts) == 7
    packed = PackedText(texts, tokenizer, block=16)
    read = tokenizer.decode([int(token) for block in packed for token in block["input_ids"]])
    whole = tokenizer.eos_token.join(texts) + tokenizer.eos_token
    assert whole.startswith(read) and len(whole) - len(read) < 16 * max(map(len, tokenizer.get_vocab()))
