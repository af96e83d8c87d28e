"""Example pictures of the page, each with a question. ``example_pictures/README.md`` names their source."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from llava.serve.uploads import local_picture

FOLDER = Path(__file__).resolve().parent / "example_pictures"


@dataclass(frozen=True)
class Example:
    """A picture in ``FOLDER`` and a question about it."""

    file: str
    question: str

    @property
    def path(self) -> Path:
        """Path of the picture."""
        return FOLDER / self.file

    def picture(self) -> Image.Image:
        """The picture as RGB.

        Raises:
            InputError: The picture cannot be read; the message names the file.
        """
        return local_picture(self.path)


EXAMPLES = (
    Example("things.png", "Where is the banana?"),
    Example("sign.png", "What does the sign say?"),
    Example("animals.png", "How many animals are there in the picture?"),
)
