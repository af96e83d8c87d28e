"""lmms-eval's requests in our words; needs no lmms-eval."""

import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from llava.conversation import HUMAN, get_template
from llava.errors import InputError
from llava.eval.lmms.plugin import MODEL_CLASS, MODEL_ID
from llava.eval.lmms.requests import DEFAULT_NEW_TOKENS, Limits, asks_for_sampling, human_turn, pictures_of
from llava.inference.generate import prompt_text
from llava.inference.question import Picture, Question

REPOSITORY = Path(__file__).parents[3]
PLAIN, MARKED = SimpleNamespace(), SimpleNamespace(mm_use_im_start_end=True)


def test_limits():
    assert Limits.of({"until": ["\n\n"], "do_sample": False}) == Limits(DEFAULT_NEW_TOKENS)
    assert Limits.of({"max_new_tokens": 16, "until": "###"}) == Limits(16, ("###",))
    assert Limits.of({"max_new_tokens": "8", "until": None}) == Limits(8)
    assert Limits(8, ("###", "\n")).cut(" A goat.\nA dog.### no") == "A goat."
    assert Limits(8).cut(" One.\n\nTwo. ") == "One.\n\nTwo."


@pytest.mark.parametrize(
    ("options", "sampling"),
    [
        ({}, False),
        ({"temperature": 0, "do_sample": False, "num_beams": 1, "top_p": 1.0}, False),
        ({"temperature": None, "num_beams": None}, False),
        ({"temperature": 0.2}, True),
        ({"do_sample": True}, True),
        ({"num_beams": 3}, True),
    ],
)
def test_sampling_is_noticed(options, sampling):
    assert asks_for_sampling(options) is sampling


def test_pictures(tmp_path):
    picture = Image.new("L", (4, 3))
    picture.save(tmp_path / "a.png")
    assert pictures_of(None) == pictures_of([]) == pictures_of([None]) == []
    assert pictures_of([picture, None, picture]) == [picture, picture]
    (loaded,) = pictures_of([str(tmp_path / "a.png")])
    assert loaded.mode == "RGB" and loaded.size == (4, 3)
    with pytest.raises(InputError, match="dict; only images"):
        pictures_of([{"array": [], "sampling_rate": 16000}])
    (tmp_path / "a.mp4").write_bytes(b"not a picture")
    with pytest.raises(InputError, match="a.mp4"):
        pictures_of([str(tmp_path / "a.mp4")])


def test_markers():
    assert human_turn("Why?", 0, PLAIN) == "Why?"
    assert human_turn("Why <image>?", 0, PLAIN) == "Why ?"
    assert human_turn("Why?", 2, PLAIN) == "<image>\n<image>\nWhy?"
    assert human_turn("Is <image> like <image>?", 2, PLAIN) == "Is <image> like <image>?"
    with pytest.raises(InputError, match="1 <image> markers but 2 images"):
        human_turn("Is <image>?", 2, PLAIN)


@pytest.mark.parametrize("config", [PLAIN, MARKED])
@pytest.mark.parametrize("picture", [None, Picture.file(Path("x.png"))])
def test_prompts_are_those_of_our_own_evaluation(config, picture):
    template = get_template("qwen")
    turn = human_turn("What is it?\nBe short.", 0 if picture is None else 1, config)
    text = "".join(segment.text for segment in template.compose([(HUMAN, turn)]))
    assert text == prompt_text(Question("1", "What is it?\nBe short.", picture), template, config)


def test_the_entry_point_names_what_is_there():
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["entry-points"]
    assert declared["lmms_eval.models"] == {MODEL_ID: "llava.eval.lmms.plugin:manifest"}
    module, name = MODEL_CLASS.rsplit(".", 1)
    assert f"class {name}(" in (REPOSITORY / f"{module.replace('.', '/')}.py").read_text()
