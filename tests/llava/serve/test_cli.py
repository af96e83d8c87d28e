"""The terminal: pipes, commands, errors, Ctrl-C."""

import fcntl
import io
import os
import pty
import select
import subprocess
import sys
import termios
import time

import pytest

from llava.errors import InputError
from llava.inference.checkpoint import ChatModel
from llava.inference.sampling import Sampling
from llava.serve import cli
from llava.serve.chat import Chat


@pytest.fixture
def piped(models, checkpoints, monkeypatch, capsys):
    """``piped(text, *flags)``: standard output of the program with that input."""

    def run(text: str, *flags: str) -> str:
        monkeypatch.setattr(ChatModel, "load", lambda *_, **__: models["teacher"])
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        cli.main(["--model-path", str(checkpoints["teacher"]), "--max-new-tokens", "6", *flags])
        return capsys.readouterr().out

    return run


def answers(model, picture, *questions: str) -> list[str]:
    chat = Chat(model, picture)
    return ["".join(chat.ask(question, Sampling(max_new_tokens=6))) for question in questions]


def test_a_pipe_gets_the_answers_and_nothing_else(piped, models, wide, save):
    file = str(save(wide, "wide.png"))
    out = piped("What is this?\n\nIs there a goat?\n", "--image-file", file)
    assert out == "".join(text + "\n" for text in answers(models["teacher"], wide, "What is this?", "Is there a goat?"))


def test_commands(piped, models, wide, save):
    turned = wide.rotate(180)
    first, second = str(save(wide, "a.png")), str(save(turned, "b c.png"))
    text = f"One?\n/new\nTwo?\n/image {second}\nThree?\nFour?\n/exit\nnever asked\n"
    out = piped(text, "--image_file", first)
    expected = [
        *answers(models["teacher"], wide, "One?"),
        *answers(models["teacher"], wide, "Two?"),
        *answers(models["teacher"], turned, "Three?", "Four?"),
    ]
    assert out == "".join(line + "\n" for line in expected)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("/image nowhere.png\n", "does not exist"), ("/image\n", "needs a file"), ("/what\n", "unknown command /what")],
)
def test_a_wrong_line_ends_a_pipe(piped, text, reason):
    with pytest.raises(InputError, match=reason):
        piped(text)


def test_wrong_flags(tmp_path, piped):
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(InputError, match="not in a format"):
        cli.main(["--model-path", "x", "--image-file", str(tmp_path / "text.png")])
    with pytest.raises(InputError, match="no readable config.json"):
        cli.main(["--model-path", str(tmp_path)])
    with pytest.raises(InputError, match="temperature"):
        cli.main(["--model-path", "x", "--temperature", "-1"])


def test_keyboard(talkative, wide, save):
    """A real terminal: an answer streams, Ctrl-C stops it, mistakes do not end the program, Ctrl-C at the prompt
    neither, /exit does."""
    main_end, program_end = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-m", "llava.serve.cli", "--model-path", str(talkative)]
        + ["--image-file", str(save(wide, "wide.png")), "--max-new-tokens", "450"],
        stdin=program_end,
        stdout=program_end,
        stderr=program_end,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # Ctrl-C then reaches the program
        env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"},
    )
    os.close(program_end)
    seen = ""

    def wait_for(text: str, seconds: float = 120, pressing: bytes = b"") -> None:
        """Reads until `text`; the key `pressing` is pressed once a second meanwhile (Python acts on a Ctrl-C that comes
        between a prompt and its first wait for a key only with the next one)."""
        nonlocal seen
        end, next_press = time.monotonic() + seconds, time.monotonic()
        while text not in seen:
            assert time.monotonic() < end, f"no {text!r} in {seen!r}"
            if pressing and time.monotonic() >= next_press:
                os.write(main_end, pressing)
                next_press += 1
            if select.select([main_end], [], [], 0.2)[0]:
                seen += os.read(main_end, 65536).decode(errors="replace")
        seen = seen.partition(text)[2]

    try:
        wait_for("USER: ")
        os.write(main_end, b"What is this?\n")
        wait_for("ASSISTANT: ")
        os.write(main_end, b"\x03")
        wait_for("[stopped]")
        wait_for("USER: ")
        os.write(main_end, b"/image nowhere.png\n")
        wait_for("error: image 'nowhere.png' does not exist")
        wait_for("USER: ")
        wait_for("/exit or Ctrl-D", pressing=b"\x03")
        wait_for("USER: ")
        os.write(main_end, b"/exit\n")
        assert program.wait(30) == 0
    finally:
        program.kill()
        os.close(main_end)
