"""A question to a model and its image; importing this module imports neither torch nor Pillow."""

import base64
import binascii
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.errors import InputError

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Picture:
    """Location of an image: a file, or base64 text in a table.

    Attributes:
        name: Its name in error messages.
        path: Its file.
        data: Base64 text, instead of a file.
    """

    name: str
    path: Path | None = None
    data: str | None = None

    @classmethod
    def file(cls, path: Path) -> "Picture":
        """An image on disk."""
        return cls(name=str(path), path=path)

    @property
    def identity(self) -> str:
        """Equal for equal images, so that a batch contains each only once."""
        return self.data if self.data is not None else str(self.path)

    def exists(self) -> bool:
        """Whether its file exists; True for base64 text."""
        return self.path is None or self.path.is_file()

    def load(self) -> "Image.Image":
        """The image as RGB.

        Raises:
            InputError: It cannot be read; the message names it.
        """
        from PIL import Image  # imported here because scoring needs no images and should start quickly

        from llava.data.images import load_image, to_rgb

        if self.data is None:
            assert self.path is not None
            return load_image(self.path)
        try:
            with Image.open(io.BytesIO(base64.b64decode(self.data, validate=True))) as image:
                return to_rgb(image)
        except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"image {self.name} cannot be read: {error}") from error


@dataclass(frozen=True)
class Question:
    """One question of a benchmark or a user's own file, with the data for scoring its answer.

    Attributes:
        question_id: Id in the question file; not always unique (MME has two questions with one id).
        text: The user's text, including the benchmark's suffix, without an image marker.
        picture: Its image; None for a text-only question.
        gold: The expected answer, in the form that the benchmark's scorer takes.
        category: The part of the benchmark it belongs to.
        group: Questions with the same group are scored together and are never separated by a limit.
        info: Further columns, by which a scorer may report.
        key: Unique key among the questions of a run; set by :func:`llava.eval.records.with_keys`.
        history: Earlier turns, each the user's text and the assistant's answer. The image is in the first turn.
    """

    question_id: str | int
    text: str
    picture: Picture | None = None
    gold: Any = None
    category: str = ""
    group: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    key: str = ""
    history: tuple[tuple[str, str], ...] = ()
