"""Draw a scene."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from playground.mini.concepts import sprite
from playground.mini.layout import Background, Scene, Sign

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "white": (244, 244, 240),
    "gray": (150, 152, 156),
    "black": (34, 34, 40),
    "blue": (120, 176, 240),
    "green": (140, 206, 140),
    "yellow": (246, 224, 118),
    "pink": (248, 182, 206),
    "purple": (150, 116, 196),
    "brown": (150, 112, 80),
}
"""Background colours by name."""

PLATES: dict[str, Colour] = {
    "red": (200, 30, 36),
    "blue": (24, 70, 180),
    "green": (16, 116, 60),
    "black": (24, 24, 28),
    "purple": (96, 40, 136),
    "brown": (104, 60, 28),
}
"""Sign colours by name, all dark, so that white letters stand out on each."""

INK: Colour = (255, 255, 255)
"""Colour of a sign's letters and edge."""


def _shade(colour: Colour, factor: float) -> np.ndarray:
    """A lighter (factor > 0, towards white) or darker (< 0) shade, float32 [3]."""
    base = np.asarray(colour, dtype=np.float32)
    return base + (255.0 - base) * factor if factor > 0 else base * (1.0 + factor)


def draw_background(background: Background, size: int) -> Image.Image:
    """The background alone, ``size`` x ``size``, RGB; two shades of one named colour."""
    generator = np.random.default_rng(background.texture)
    colour = COLOURS[background.colour]
    light, dark = _shade(colour, 0.22), _shade(colour, -0.16)
    steps = np.linspace(0.0, 1.0, size, dtype=np.float32)
    if background.kind == "plain":
        mix = np.full((size, size), 0.5, dtype=np.float32)
    elif background.kind == "gradient":
        angle = generator.uniform(0, 2 * np.pi)
        mix = (steps[None, :] - 0.5) * np.cos(angle) + (steps[:, None] - 0.5) * np.sin(angle)
        mix = (mix - mix.min()) / (mix.max() - mix.min())
    elif background.kind == "striped":
        across = [
            steps[None, :] + 0 * steps[:, None],
            steps[:, None] + 0 * steps[None, :],
            (steps[None, :] + steps[:, None]) / 1.4,
        ]
        mix = (np.floor(across[generator.integers(3)] * generator.integers(5, 9)) % 2).astype(np.float32)
    else:
        coarse = Image.fromarray(generator.integers(0, 256, (7, 7), dtype=np.uint8))
        mix = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32) / 255.0
        mix = np.clip(mix + generator.normal(0, 0.12, (size, size)).astype(np.float32), 0, 1)
    picture = light + (dark - light) * mix[:, :, None]
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


@lru_cache(maxsize=1024)
def draw_sign(word: str, colour: str, width: int, height: int) -> Image.Image:
    """The plate of a sign, RGB; the letters are as tall as fits the width, at least half of the height."""
    plate = Image.new("RGB", (width, height), PLATES[colour])
    draw = ImageDraw.Draw(plate)
    points = height
    while points > 4:
        font = ImageFont.load_default(size=points)
        stroke = max(1, round(points / 24))
        left, top, right, bottom = draw.textbbox((0, 0), word, font=font, stroke_width=stroke)
        if right - left <= 0.96 * width and bottom - top <= 0.86 * height:
            break
        points -= 1
    where = ((width - left - right) / 2, (height - top - bottom) / 2)
    draw.text(where, word, font=font, fill=INK, stroke_width=stroke, stroke_fill=INK)
    draw.rectangle((0, 0, width - 1, height - 1), outline=INK)
    return plate


def _paste_sign(canvas: Image.Image, sign: Sign) -> None:
    left, top, right, bottom = (round(value * canvas.width) for value in sign.box)
    canvas.paste(draw_sign(sign.word, sign.colour, right - left, bottom - top), (left, top))


def render(scene: Scene, size: int = 80) -> Image.Image:
    """Draw a scene as an RGB picture of ``size`` x ``size`` pixels; the same scene gives the same pixels."""
    canvas = draw_background(scene.background, size)
    if scene.sign is not None:
        _paste_sign(canvas, scene.sign)
    for item in scene.objects:
        left, top, right, _ = item.box
        picture = sprite(item.concept, max(1, round((right - left) * size)))
        canvas.paste(picture, (round(left * size), round(top * size)), picture)
    return canvas
