"""A tiny teacher and student on disk and loaded, pictures, and a headless browser where there is one."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import SiglipImageProcessorPil, SiglipVisionConfig, SiglipVisionModel

from align_ti.attention.interface import NAME
from align_ti.training import train as distillation
from llava.inference.checkpoint import ChatModel
from llava.model import language_model_class
from llava.model.builder import load_pretrained_model
from tests.llava.serve.pages import Visitors
from tests.runs import COMMON

SIDE = 3
"""Visual tokens along a side: the tower reads 26 pixels with patches of 8, so two pixels are never seen."""


@pytest.fixture(scope="session")
def tower(tmp_path_factory) -> Path:
    """A vision tower that tells pictures apart."""
    folder = tmp_path_factory.mktemp("towers") / "tower"
    torch.manual_seed(1)
    model = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=8 * SIDE + 2,
            patch_size=8,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 8 * SIDE + 2, "width": 8 * SIDE + 2}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoints(world, tower, qwen_tokenizer, tmp_path_factory) -> dict[str, Path]:
    """``teacher`` (3 layers) and ``student`` (2 layers), in LLaVA's layout, tuned with the ``qwen`` template."""
    folders = {}
    for seed, (name, base) in enumerate((("teacher", world.teacher_lm), ("student", world.student_lm))):
        folder = tmp_path_factory.mktemp("checkpoints") / name
        model = language_model_class("qwen2").from_pretrained(base, dtype=torch.float32)
        torch.manual_seed(5 + seed)
        model.initialize_vision_modules(str(tower), mm_projector_type="mlp2x_gelu", mm_vision_select_layer=-1)
        model.config.image_aspect_ratio = "pad"
        model.config.mm_template = "qwen"
        with torch.no_grad():
            for parameter in model.model.mm_projector.parameters():
                parameter.mul_(8)  # so that the answers depend on the picture
        model.save_pretrained(folder)
        qwen_tokenizer.save_pretrained(folder)
        folders[name] = folder
    return folders


@pytest.fixture(scope="session")
def talkative(checkpoints, tmp_path_factory) -> Path:
    """A checkpoint that never ends an answer by itself."""
    folder = tmp_path_factory.mktemp("checkpoints") / "talkative"
    tokenizer, model, _, _ = load_pretrained_model(checkpoints["teacher"])
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer.eos_token_id] = 0  # tied: its logit is 0, others' are above
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def silent(checkpoints, tmp_path_factory) -> Path:
    """A checkpoint whose answers are empty."""
    folder = tmp_path_factory.mktemp("checkpoints") / "silent"
    tokenizer, model, _, _ = load_pretrained_model(checkpoints["student"])
    assert tokenizer.eos_token_id == 0
    with torch.no_grad():
        model.model.norm.weight.zero_()  # all logits are 0, and the first token is the likeliest
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def distilled(world, tower, checkpoints, tmp_path_factory) -> Path:
    """A student that ``teacher`` taught for one step, IVA's layer chosen by IRS: the folder of a real run."""
    folder = tmp_path_factory.mktemp("runs") / "distilled"
    flags = [
        "--teacher_path", str(checkpoints["teacher"]), "--model_name_or_path", str(world.student_lm),
        "--vision_tower", str(tower), "--image_aspect_ratio", "pad", "--data_path", str(world.data),
        "--image_folder", str(world.images), "--output_dir", str(folder), "--per_device_train_batch_size", "8",
        "--max_steps", "1", "--irs_inputs", "8", "--irs_pairs", "20",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train", *COMMON, *flags])
        distillation.main()
    return folder


@pytest.fixture(scope="session")
def models(checkpoints) -> dict[str, ChatModel]:
    """The two models in float64, so that argmax does not hang on rounding, with watched attention."""
    return {
        name: ChatModel.load(str(folder), dtype="float64", attn_implementation=NAME)
        for name, folder in checkpoints.items()
    }


@pytest.fixture
def wide() -> Image.Image:
    """A picture that is not square: red on the left, blue on the right."""
    picture = Image.new("RGB", (96, 40), (220, 30, 30))
    picture.paste((40, 60, 220), (48, 0, 96, 40))
    return picture


def find_browser() -> str | None:
    """A Chromium: ``ALIGN_TI_BROWSER``, an installed one, what ``scripts/browser.sh`` fetched, or playwright's own."""
    fetched = Path(__file__).parents[3] / ".cache/browser/chromium"
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = [os.environ.get("ALIGN_TI_BROWSER"), *map(shutil.which, names), str(fetched)]
    return next((path for path in found if path and Path(path).is_file()), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless browser, or a skip that says what is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the dev extra)")
    with playwright.sync_playwright() as driver:
        path = find_browser() or driver.chromium.executable_path
        if not Path(path).is_file():
            pytest.skip("no Chromium: run scripts/browser.sh, or set ALIGN_TI_BROWSER")
        quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
        quiet += ["--disable-background-networking", "--disable-component-update"]
        try:
            running = driver.chromium.launch(executable_path=path, args=["--headless=shell", *quiet])
        except playwright.Error as error:
            pytest.skip(f"{path} does not start here: {str(error).splitlines()[0]}")
        yield running
        running.close()


@pytest.fixture
def visitors(browser) -> Iterator[Visitors]:
    """Visitors of pages, who leave at the end."""
    visitors = Visitors(browser)
    yield visitors
    for context in visitors.contexts:
        context.close()
    assert visitors.strangers == []


@pytest.fixture
def save(tmp_path) -> Callable[..., Path]:
    """``save(picture, "name.png")``: a picture as a file."""

    def write(picture: Image.Image, name: str, **kwargs: Any) -> Path:
        picture.save(tmp_path / name, **kwargs)
        return tmp_path / name

    return write
