"""Pictures of questions: a file, or base64 text inside a table."""

import base64
import binascii
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llava.errors import InputError

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Picture:
    """Where a picture is. ``name`` says it in an error message; ``data`` is base64, instead of a ``path``."""

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
            InputError: it cannot be read; the message names it.
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
