"""Chat with a checkpoint in the terminal.

    python -m llava.serve.cli --model-path CHECKPOINT --image-file picture.jpg

Commands: ``/image FILE`` loads another image and ``/new`` clears the history (both start a new conversation),
``/exit`` or Ctrl-D quits. Ctrl-C stops an answer. When input is piped, every line is a question or a command, standard
output contains only the answers, and the first error ends the program:

    echo "What is on the left?" | python -m llava.serve.cli --model-path CHECKPOINT --image-file picture.jpg
"""

import argparse
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from llava.console import on_a_terminal, quiet_libraries
from llava.errors import InputError, run_cli
from llava.flags import add_flag, add_model_flags, add_sampling_flags
from llava.inference.sampling import Sampling

if TYPE_CHECKING:
    from PIL import Image

    from llava.inference.checkpoint import ChatModel
    from llava.serve.chat import Chat

COMMANDS = "/image FILE, /new, /exit"


class Terminal:
    """A conversation between standard input and a model."""

    def __init__(self, model: "ChatModel", picture: "Image.Image | None", sampling: Sampling, interactive: bool):
        self.model, self.picture, self.sampling, self.interactive = model, picture, sampling, interactive
        self.chat = self._begin()

    def run(self) -> None:
        """Answer until the input ends.

        Raises:
            InputError: A line is invalid and the input is not interactive; otherwise the error is shown and the next
                line is read.
        """
        for line in _typed() if self.interactive else sys.stdin:
            try:
                if line.startswith("/"):
                    if not self._command(line):
                        return
                elif line.strip():
                    self._answer(line)
            except InputError as error:
                if not self.interactive:
                    raise
                self._note(f"error: {error}")

    def _command(self, line: str) -> bool:
        """Run a command; False means quit."""
        name, _, rest = line.strip().partition(" ")
        if name == "/image":
            self.picture = read_picture(rest.strip())
        elif name not in ("/new", "/exit"):
            raise InputError(
                f"unknown command {name}; commands are {COMMANDS} (to start a question with a slash, "
                "put a space before it)"
            )
        if name != "/exit":
            self.chat = self._begin()
            self._note("a new conversation" + (" about this image" if self.picture is not None else ""))
        return name != "/exit"

    def _answer(self, question: str) -> None:
        out = sys.stdout
        with closing(self.chat.ask(question, self.sampling)) as pieces, _interrupt_calls(self.chat.stop):  # type: ignore[type-var]
            for index, piece in enumerate(pieces):
                if index == 0 and self.interactive:
                    out.write("ASSISTANT: ")
                out.write(piece)
                out.flush()
        out.write(" [stopped]\n" if self.interactive and self.chat.finish == "interrupted" else "\n")
        out.flush()
        if self.chat.finish == "length":
            self._note(f"cut after {self.sampling.max_new_tokens} tokens, or at the end of the model's context")

    def _begin(self) -> "Chat":
        from llava.serve.chat import Chat

        return Chat(self.model, self.picture)

    def _note(self, text: str) -> None:
        if self.interactive:
            sys.stderr.write(f"({text})\n")


def read_picture(name: str) -> "Image.Image":
    """The image called ``name``.

    Raises:
        InputError: The name is missing or a URL, or the file cannot be read.
    """
    from llava.serve.uploads import local_picture

    if not name:
        raise InputError("/image needs a file: /image picture.jpg")
    if "://" in name:
        raise InputError(f"{name} is a URL; download the image and give its file")
    return local_picture(Path(name).expanduser())


@contextlib.contextmanager
def _interrupt_calls(stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C calls ``stop``; the second raises ``KeyboardInterrupt``.

    An exception at the first one could be raised while the main thread holds the lock of the queue that the generating
    thread writes to, which would deadlock.
    """
    usual = signal.getsignal(signal.SIGINT)

    def handle(*_: object) -> None:
        signal.signal(signal.SIGINT, usual)
        stop()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def _typed() -> Iterator[str]:
    """Lines from the keyboard; Ctrl-C drops the line, Ctrl-D quits."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (gives input() a history)
    while True:
        try:
            line = input("USER: ")
        except EOFError:
            sys.stderr.write("\n")
            return
        except KeyboardInterrupt:
            sys.stderr.write("\n(Ctrl-C stops an answer; /exit or Ctrl-D ends the program)\n")
            continue
        yield line


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add_flag(parser, "--model-path", required=True, help="checkpoint folder or hub name")
    add_flag(parser, "--image-file", help="image to ask about; without it the chat is text-only")
    add_model_flags(parser)
    add_flag(parser, "--attn-implementation", help="as in transformers")
    add_sampling_flags(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    arguments = parse(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sampling = Sampling(arguments.temperature, arguments.top_p, arguments.max_new_tokens)
    picture = read_picture(arguments.image_file) if arguments.image_file is not None else None

    from llava.inference.checkpoint import ChatModel  # slow to import: only after the input has been checked

    quiet_libraries(bars=on_a_terminal())
    model = ChatModel.load(
        arguments.model_path,
        arguments.model_base,
        template=arguments.conv_mode,
        device=arguments.device,
        dtype=arguments.dtype,
        attn_implementation=arguments.attn_implementation,
        load_8bit=arguments.load_8bit,
        load_4bit=arguments.load_4bit,
    )
    interactive = sys.stdin.isatty()
    terminal = Terminal(model, picture, sampling, interactive)
    if interactive:
        about = "with an image" if picture is not None else "without an image"
        sys.stderr.write(f"{model.name}, template {model.template.name}, {about}; {COMMANDS}; Ctrl-C stops an answer\n")
    terminal.run()


if __name__ == "__main__":
    run_cli(main)
