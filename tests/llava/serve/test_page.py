"""What convinces on the page, in a real browser: IVA's layer, columns at equal heights, examples, speed."""

import re
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

gradio = pytest.importorskip("gradio", reason="gradio is not installed (the serve extra)")

from align_ti.web.examples import EXAMPLES  # noqa: E402
from align_ti.web.maps import WATCHED_ATTENTION, measure  # noqa: E402
from align_ti.web.opening import openings  # noqa: E402
from align_ti.web.project import PAPER  # noqa: E402
from llava.inference.checkpoint import ChatModel  # noqa: E402
from llava.inference.sampling import Sampling  # noqa: E402
from tests.llava.serve.pages import (  # noqa: E402
    ask,
    built,
    finished,
    last_answer,
    move_slider,
    reference,
    says,
    served,
    shown_map,
    squeezed,
    upload,
)


@pytest.fixture(scope="module")
def pair(models, distilled):
    """A teacher, and the student of a real distillation."""
    student = ChatModel.load(str(distilled), dtype="float64", attn_implementation=WATCHED_ATTENTION)
    return [models["teacher"], student]


@pytest.fixture(scope="module")
def address(pair, tmp_path_factory):
    with served(pair, tmp_path_factory.mktemp("uploads")) as address:
        yield address


def test_an_example_opens_at_ivas_layer(visitors, address, pair):
    page = visitors.open(address)
    title = page.inner_text("#title")
    assert "Align-TI" in title and page.locator(f"#title a[href='{PAPER}']").is_visible()
    starts = openings([(model.path, model.layers) for model in pair])
    assert [start.kind for start in starts] == ["l*", "depth"]
    for number, (model, start, mark) in enumerate(
        zip(pair, starts, ("l*: IVA's layer", "same depth as l*"), strict=True)
    ):
        assert page.input_value(f"#layer-{number} input[type=number]") == str(start.layer)
        assert f"Layer {start.layer} of {model.layers} ({mark})" in page.inner_text(f"#layer-{number}")
        assert page.get_by_text(("Teacher: ", "Student: ")[number] + model.name).is_visible()
    example = EXAMPLES[1]
    page.get_by_role("button", name=example.question).click()
    page.wait_for_selector("#upload img")
    page.wait_for_function("text => document.querySelector('#question textarea').value == text", arg=example.question)
    page.click("#ask")
    finished(page, example.question)
    for number, chat in enumerate(reference(pair, example.picture(), example.question)):
        assert squeezed(last_answer(page, number)) == squeezed(chat.exchanges[0][1])
        drawn = Image.open(BytesIO(shown_map(page, number))).convert("RGB")
        assert drawn.tobytes() == measure(chat).picture(example.picture(), starts[number].layer).tobytes()
    move_slider(page, 0, 2)
    says(page, "#layer-0", f"Layer 2 of 3 (l* is {starts[0].layer})")
    page.click("#layer-0 [data-testid=reset-button]")
    says(page, "#layer-0", "l*: IVA's layer")
    page.click("#example-2")  # another picture, another conversation
    page.wait_for_selector("#chat-0 [data-testid=bot]", state="detached")
    assert page.input_value("#question textarea") == EXAMPLES[2].question


def test_example_pictures_outlive_the_cleaning_of_the_cache(pair, tmp_path):
    with built(pair, tmp_path / "uploads") as page:
        gradio.route_utils.delete_files_created_by_app(page.blocks, age=None)
        for button, example in zip(page.widgets.examples, EXAMPLES, strict=True):
            assert Path(button.icon["path"]).read_bytes() == example.path.read_bytes()
            assert Path(button.icon["path"]).is_relative_to(tmp_path)


def test_the_speed_of_the_selected_answer_is_shown(visitors, address, wide, save):
    page = visitors.open(address)
    upload(page, save(wide, "wide.png"))
    speeds = []
    for question in ("What is this?", "Is it red?"):
        ask(page, question)
        finished(page, question)
        speeds.append([page.inner_text(f"#timing-{number}") for number in range(2)])
    for text in (text for both in speeds for text in both):
        first, tokens, total, rate = map(
            float,
            re.fullmatch(
                r"([\d.]+) s to the first token, (\d+) tokens? in ([\d.]+) s, ([\d.]+) tokens/s", text
            ).groups(),
        )
        assert 0 < first <= total and 1 <= tokens <= 16
        assert rate == pytest.approx(tokens / total, rel=0.02 + 0.005 / total)
    page.locator("#chat-0 [data-testid=bot]").first.click()
    for number in range(2):
        says(page, f"#timing-{number}", speeds[0][number])
    page.click("#new")
    page.wait_for_function("document.querySelector('#timing-0').innerText.trim() == ''")


def test_a_question_needs_a_picture_unless_the_visitor_says_otherwise(visitors, address, wide, save):
    page = visitors.open(address)
    ask(page, "What is this?")
    says(page, "#notice", "there is no picture to ask about")
    assert page.input_value("#question textarea") == "What is this?", "nothing has to be typed again"
    assert page.locator("[data-testid=user]").count() == 0
    page.check("#pictureless input")
    page.click("#ask")
    page.wait_for_selector("#timing-1:has-text('tokens/s')")
    page.wait_for_selector("#ask:not([disabled])")
    assert page.inner_text("#notice").strip() == "" and "No map yet" in page.inner_text("#legend-0")
    page.uncheck("#pictureless input")
    upload(page, save(wide, "wide.png"))
    page.route("**/run/predict*", lambda route: None)  # the server is not told of the next click
    page.click("#upload [aria-label='Remove Image']")
    page.wait_for_selector("#upload input[type=file]", state="attached")
    ask(page, "And now?")
    says(page, "#notice", "there is no picture to ask about")


@pytest.fixture(scope="module")
def uneven(talkative, silent, tmp_path_factory):
    """The page of a model with a long name and long answers beside one whose answers are empty."""
    long = tmp_path_factory.mktemp("uneven") / "a-model-with-a-name-that-needs-more-than-one-line-of-its-column"
    long.symlink_to(talkative)
    models = [
        ChatModel.load(str(path), dtype="float64", attn_implementation=WATCHED_ATTENTION) for path in (long, silent)
    ]
    with served(models, tmp_path_factory.mktemp("uploads"), Sampling(max_new_tokens=300)) as address:
        yield address


@pytest.mark.parametrize("width", [1400, 800, 560])
def test_columns_stand_at_equal_heights(visitors, uneven, wide, save, width):
    page = visitors.open(uneven, width)
    upload(page, save(wide, "wide.png"))
    move_slider(page, 0, 0)
    ask(page, "What is on the left of the picture, and is there more of it on the right?")
    page.wait_for_selector("#chat-0 [data-testid=user]")
    move_slider(page, 0, 2)  # while it answers
    finished(page, "What is on the left")
    assert "300 tokens" in page.inner_text("#timing-0") and "1 token " in page.inner_text("#timing-1")
    assert "Layer 2:" in page.inner_text("#legend-0"), "the map follows the slider"
    for part in ("chat", "timing", "map", "layer", "legend"):
        left, right = (page.locator(f"#{part}-{number}").bounding_box() for number in range(2))
        assert left["y"] == pytest.approx(right["y"], abs=0.6), part
        assert left["width"] == pytest.approx(right["width"], abs=1) and left["x"] + left["width"] <= right["x"], part
        if part in ("chat", "map"):
            assert left["height"] == pytest.approx(right["height"], abs=0.6)
    tracks = [page.locator(f"#layer-{number} input[type=range]").bounding_box()["y"] for number in range(2)]
    assert tracks[0] == pytest.approx(tracks[1], abs=0.6)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"


def test_on_a_phone_everything_stands_in_one_column(visitors, uneven):
    page = visitors.open(uneven, 390)
    boxes = [
        page.locator(f"#{name}").bounding_box() for name in ("upload", "chat-0", "chat-1", "ask", "map-0", "map-1")
    ]
    for above, below in zip(boxes, boxes[1:], strict=False):
        assert above["y"] + above["height"] <= below["y"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
