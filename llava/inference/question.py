"""A question to a model and its picture; importing this needs neither torch nor Pillow."""

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
    """Where a picture is: a file, or base64 text inside a table.

    Attributes:
        name: What an error message calls it.
        path: Its file.
        data: Base64 text, instead of a file.
    """

    name: str
    path: Path | None = None
    data: str | None = None

    @classmethod
    def file(cls, path: Path) -> "Picture":
        """A picture on disk."""
        return cls(name=str(path), path=path)

    @property
    def identity(self) -> str:
        """Equal for equal pictures, so that a batch needs each only once."""
        return self.data if self.data is not None else str(self.path)

    def exists(self) -> bool:
        """False for a file that is not there."""
        return self.path is None or self.path.is_file()

    def load(self) -> "Image.Image":
        """The picture as RGB.

        Raises:
            InputError: It cannot be read; the message names it.
        """
        from PIL import Image  # here, since scorers and the table need no pictures and should start at once

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
    """One question, of a benchmark or of a user's own file, with what is needed to score the answer.

    Attributes:
        question_id: Id in the benchmark's own file; not always unique (MME asks twice about a picture).
        text: The user's words, the benchmark's suffix included, without an image marker.
        picture: None for a text-only question.
        gold: The expected answer, in the form the benchmark's scorer takes.
        category: The part of the benchmark it belongs to.
        group: Questions that are scored together share it and are never separated by a limit.
        info: Further columns that a scorer reports by.
        key: Unique among the questions asked together; set by :func:`llava.eval.records.with_keys`.
    """

    question_id: str | int
    text: str
    picture: Picture | None = None
    gold: Any = None
    category: str = ""
    group: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    key: str = ""
