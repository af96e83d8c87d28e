"""Draw the example pictures of the web page (``align_ti/web/example_pictures``), from the repository's root:

    python -m playground.mini.page_examples

They are scenes in the style of the miniature, composed by hand and larger.
"""

from pathlib import Path

from PIL import Image

from align_ti.web.examples import FOLDER
from playground.mini.layout import SIZES, Background, Scene, SceneObject, Sign
from playground.mini.render import render
from playground.mini.scenes import PLACES
from playground.mini.wording import SIDE

PIXELS = 240


def scene(key: str, background: Background, things: dict[str, str], sign: Sign | None = None) -> Scene:
    """A scene with large objects at the given places (``{place: concept}``)."""
    return Scene(key, tuple(_thing(name, place) for place, name in things.items()), background, sign)


def _thing(name: str, place: str) -> SceneObject:
    """A large object in the middle of a place."""
    side = SIZES["large"]
    row, column = divmod(PLACES.index(place), SIDE)
    left, top = ((cell + 0.5) / SIDE - side / 2 for cell in (column, row))
    return SceneObject(name, place, "large", (left, top, left + side, top + side))


SCENES = (
    scene(
        "things",
        Background("plain", "blue", 0),
        {"top left": "violin", "top right": "tractor", "bottom left": "cactus", "bottom right": "banana"},
    ),
    scene(
        "sign",
        Background("plain", "white", 0),
        {"top right": "doughnut", "bottom left": "chair", "bottom right": "ice cream"},
        Sign("CAFE", "top left", "green"),
    ),
    scene(
        "animals",
        Background("plain", "green", 0),
        {"top left": "cat", "top right": "basketball", "bottom left": "panda", "bottom right": "turtle"},
    ),
)


def draw(folder: Path) -> list[Path]:
    """Write all pictures into a folder, as PNG named after the scenes' keys."""
    files = []
    for item in SCENES:
        files.append(folder / f"{item.key}.png")
        picture = render(item, PIXELS).quantize(128, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        picture.save(files[-1], optimize=True)
    return files


if __name__ == "__main__":
    for path in draw(FOLDER):
        print(path)
