"""A running page, and what a visitor does on it."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from align_ti.web import server
from llava.inference.checkpoint import ChatModel
from llava.inference.sampling import Sampling
from llava.serve.chat import Chat
from llava.serve.uploads import UploadLimits

GREEDY = Sampling(max_new_tokens=16)
LIMITS = UploadLimits(max_bytes=50_000, max_pixels=100_000)
MINUTE = 60_000


@contextmanager
def built(models: Sequence[ChatModel], uploads: Path, sampling: Sampling = GREEDY) -> Iterator[Any]:
    """A page that nobody serves yet."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GRADIO_TEMP_DIR", "")
        environment.setenv("GRADIO_ANALYTICS_ENABLED", "")
        server.prepare_gradio(str(uploads))
        from align_ti.web.page import Page

        yield Page(models, sampling, LIMITS)


@contextmanager
def served(models: Sequence[ChatModel], uploads: Path, sampling: Sampling = GREEDY) -> Iterator[str]:
    """A page on a free port of this machine; gives its address."""
    with built(models, uploads, sampling) as page:
        yield server.launch(page, "127.0.0.1", 0, block=False).rstrip("/")
        page.blocks.close()


class Visitors:
    """Visitors of pages. No request of theirs may leave the machine."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser
        self.contexts: list[Any] = []
        self.strangers: list[str] = []

    def open(self, address: str, width: int = 1400) -> Any:
        """A new visitor's tab."""

        def note(request: Any) -> None:
            if not request.url.startswith((address, "data:", "blob:")):
                self.strangers.append(request.url)

        self.contexts.append(self.browser.new_context(viewport={"width": width, "height": 1100}))
        page = self.contexts[-1].new_page()
        page.set_default_timeout(MINUTE)
        page.on("request", note)
        page.goto(address)
        page.wait_for_selector("#question textarea")
        return page


def upload(page: Any, path: Path) -> None:
    """Hand in a picture, and wait until the server has taken it."""
    with page.expect_response("**/run/predict*"):
        page.set_input_files("#upload input[type=file]", str(path))
    page.wait_for_selector("#upload img")


def ask(page: Any, question: str) -> None:
    """Ask both models."""
    page.fill("#question textarea", question)
    page.click("#ask")


def says(page: Any, place: str, text: str) -> None:
    """Wait until an element says something."""
    page.wait_for_function("([at, text]) => document.querySelector(at).innerText.includes(text)", arg=[place, text])


def finished(page: Any, question: str) -> None:
    """Wait until both models have answered and their maps are drawn."""
    for number in range(2):
        page.wait_for_selector(f"#map-{number} img")
        says(page, f"#legend-{number}", question)
    page.wait_for_selector("#ask:not([disabled])")


def move_slider(page: Any, number: int, layer: int) -> None:
    """Choose the layer of a map."""
    page.locator(f"#layer-{number} input[type=number]").fill(str(layer))
    page.locator(f"#layer-{number} input[type=number]").press("Tab")


def last_answer(page: Any, number: int) -> str:
    """The newest answer in a column."""
    return page.locator(f"#chat-{number} [data-testid=bot]").last.inner_text()


def squeezed(text: str) -> str:
    """Text as a browser shows it, more or less: the tiny models utter control characters and runs of blanks."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f\u200b\ufffd]+", "", text)


def shown_map(page: Any, number: int) -> bytes:
    """The file of a column's map."""
    return page.request.get(page.locator(f"#map-{number} img").get_attribute("src")).body()


def reference(models: Sequence[ChatModel], picture: Any, *questions: str) -> list[Chat]:
    """Conversations without the page."""
    chats = [Chat(model, picture) for model in models]
    for chat in chats:
        for question in questions:
            list(chat.ask(question, GREEDY))
    return chats
