"""The page in a real headless browser, and its server without one."""

import json
import threading
import urllib.error
import urllib.request
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

gradio = pytest.importorskip("gradio", reason="gradio is not installed (the serve extra)")

from align_ti.web import server  # noqa: E402
from align_ti.web.maps import measure  # noqa: E402
from align_ti.web.sessions import Session, Sessions  # noqa: E402
from llava.errors import InputError  # noqa: E402
from llava.inference.sampling import Sampling  # noqa: E402
from tests.llava.serve.pages import (  # noqa: E402
    GREEDY,
    LIMITS,
    ask,
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
def both(models):
    return [models["teacher"], models["student"]]


@pytest.fixture(scope="module")
def address(both, tmp_path_factory):
    """The page with teacher and student."""
    with served(both, tmp_path_factory.mktemp("uploads")) as address:
        yield address


@pytest.fixture
def visit(visitors, address):
    """``visit()``: a new visitor's page."""
    return lambda: visitors.open(address)


def test_upload_ask_see_answer_and_map(visit, both, wide, save):
    page = visit()
    upload(page, save(wide, "wide.png"))
    ask(page, "What is this?")
    finished(page, "What is this?")
    chats = reference(both, wide, "What is this?")
    for number, chat in enumerate(chats):
        assert squeezed(last_answer(page, number)) == squeezed(chat.exchanges[0][1])
        layer = both[number].layers // 2  # no run names a better one
        assert picture_of(page, number) == measure(chat).picture(wide, layer).tobytes()
        legend = page.inner_text(f"#legend-{number}")
        assert f"Layer {layer}:" in legend and "to the padding" in legend
        assert "l*" not in page.inner_text(f"#layer-{number}")
    before = page.locator("#map-0 img").get_attribute("src")
    move_slider(page, 0, 0)
    says(page, "#legend-0", "Layer 0:")
    says(page, "#layer-0", "Layer 0 of 3")
    page.wait_for_function("src => document.querySelector('#map-0 img').src != src", arg=before)
    assert picture_of(page, 0) == measure(chats[0]).picture(wide, 0).tobytes()

    ask(page, "Is it red?")  # a second turn sees the first
    finished(page, "Is it red?")
    for number, chat in enumerate(reference(both, wide, "What is this?", "Is it red?")):
        assert squeezed(last_answer(page, number)) == squeezed(chat.exchanges[1][1])
    page.locator("#chat-1 [data-testid=bot]").first.click()  # back to the first answer's maps
    for number in range(2):
        says(page, f"#legend-{number}", "What is this?")
    page.click("#new")
    page.wait_for_selector("#chat-0 [data-testid=bot]", state="detached")
    assert "No map yet" in page.inner_text("#legend-1")


def picture_of(page, number: int) -> bytes:
    """The pixels of a column's map."""
    return Image.open(BytesIO(shown_map(page, number))).convert("RGB").tobytes()


def test_two_visitors_at_a_time_do_not_mix(visit, both, wide, save):
    pages = [visit(), visit()]
    pictures = [wide, wide.rotate(90, expand=True)]
    questions = ["What is on the left?", "Is there a goat or a dog?"]
    for page, picture, name in zip(pages, pictures, ("one.png", "two.png"), strict=True):
        upload(page, save(picture, name))
    for page, question in zip(pages, questions, strict=True):
        ask(page, question)
    for page, picture, question in zip(pages, pictures, questions, strict=True):
        finished(page, question)
        for number, chat in enumerate(reference(both, picture, question)):
            assert squeezed(last_answer(page, number)) == squeezed(chat.exchanges[0][1])
            assert page.locator(f"#chat-{number} [data-testid=bot]").count() == 1


def test_refused_uploads_say_why(visit, save):
    page = visit()
    for picture, name, reason in (
        (Image.new("RGB", (400, 300)), "large.png", "megapixels"),
        (Image.new("RGB", (20, 20)), "renamed.gif", "not a picture of a supported format"),
    ):
        path = save(picture, name)
        if path.suffix == ".gif":
            path = path.rename(path.with_suffix(".png"))
        page.set_input_files("#upload input[type=file]", str(path))
        says(page, "#upload-notice", reason)
        page.wait_for_selector("#upload input[type=file]", state="attached")  # the picture is gone again
    page.check("#pictureless input")
    ask(page, "<image> What?")
    says(page, "#notice", "no picture is loaded")


def answered(request: urllib.request.Request | str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def test_the_server_is_closed_to_what_the_page_does_not_do(address, tmp_path):
    (tmp_path / "private.txt").write_text("private")
    for path in (tmp_path / "private.txt", Path(__file__).resolve(), "/etc/hostname", "https://example.org/a.png"):
        status, content = answered(f"{address}/gradio_api/file={path}")
        assert status in (403, 404) and "private" != content
    fetch = {"data": [{"path": "http://127.0.0.1:9/a.png", "meta": {"_type": "gradio.FileData"}}], "fn_index": 0}
    for where in ("queue/join", "run/predict", "api/predict"):
        body = json.dumps({**fetch, "session_hash": "x"}).encode()
        request = urllib.request.Request(f"{address}/gradio_api/{where}", body, {"Content-Type": "application/json"})
        status, content = answered(request)
        assert status == 400 and "never from a URL" in content
    large = urllib.request.Request(f"{address}/gradio_api/upload", b"x" * (LIMITS.max_bytes + 70_000))
    assert answered(large)[0] == 413
    foreign = urllib.request.Request(address, headers={"Host": "example.org"})
    assert answered(foreign)[0] == 400
    assert json.loads(answered(f"{address}/gradio_api/info")[1])["named_endpoints"] == {}
    with urllib.request.urlopen(address) as response:
        assert "default-src 'self'" in response.headers["content-security-policy"]


def test_an_upload_is_limited_by_the_server(address):
    """Through the door the widget uses: a file a little larger than the limit."""
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    body = part + bytes(LIMITS.max_bytes + 1000) + b"\r\n--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert answered(urllib.request.Request(f"{address}/gradio_api/upload", body, headers))[0] == 413


def test_defaults_are_local():
    arguments = server.parse(["--model-path", "a", "b"])
    assert (arguments.host, arguments.share, arguments.temperature) == ("127.0.0.1", False, 0.0)
    assert server.parse(["--model-path", "a", "--model-path", "b"]).model_path == ["a", "b"]
    with pytest.raises(InputError, match="3 checkpoints"):
        server.parse(["--model-path", "a", "b", "c"])


def test_sessions_are_separate_and_limited(models):
    sessions = Sessions([models["teacher"]], capacity=2)
    first, second = sessions.of("first"), sessions.of("second")
    assert first is not second and sessions.of("first") is first
    sessions.of("third")
    assert sessions.of("first") is first and sessions.of("second") is not second  # the one silent for longest went
    with pytest.raises(InputError):
        sessions.of(None)


def test_sessions_answer_concurrently_without_mixing(both, wide):
    """Without the page's queue in between: four at once, each equal to its answer alone."""
    pictures = [wide, wide.rotate(180), wide.rotate(90, expand=True), None]
    expected = [[c.exchanges for c in reference(both, picture, "What?", "Where?")] for picture in pictures]
    sessions = [Session(both) for _ in pictures]

    def talk(session: Session, picture: Image.Image | None) -> None:
        session.show(picture)
        for question in ("What?", "Where?"):
            for _ in session.answer(question, GREEDY):
                pass

    threads = [threading.Thread(target=talk, args=pair) for pair in zip(sessions, pictures, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [[column.chat.exchanges for column in session.columns] for session in sessions] == expected
    assert all(len(column.maps) == len(column.timings) == 2 for session in sessions for column in session.columns)


def test_a_new_conversation_ends_the_answer_in_work(models, wide):
    session = Session([models["teacher"]])
    session.show(wide)
    answers = session.answer("What?", Sampling(max_new_tokens=400))
    next(answers)
    with pytest.raises(InputError, match="still being answered"):
        next(session.answer("Where?", GREEDY))
    session.begin()
    assert list(answers) == []
    assert session.columns[0].messages() == []
    assert len(list(session.answer("Where?", GREEDY))) > 1
