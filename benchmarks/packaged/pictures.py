"""Photographs, lines of text and pages, from what packages ship: uint8 RGB [height, width, 3]."""

from functools import cache
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import matplotlib
import numpy as np
import sklearn
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from packaged.packages import packaged

Array = NDArray[Any]
FACES = ("astronaut.png", "grace_hopper.jpg")
SCENES = (
    "coffee.png",
    "chelsea.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "camera.png",
    "ihc.png",
    "china.jpg",
    "flower.jpg",
)
FONT_SIZES = (22, 32)


def photograph(rng: Generator, size: int, names: tuple[str, ...] = FACES + SCENES) -> Array:
    """A square part of a photograph, at most mirrored."""
    image = _opened(names[int(rng.integers(len(names)))])
    side = int(min(image.size) * rng.uniform(0.6, 1))
    left, top = (int(rng.integers(length - side + 1)) for length in image.size)
    image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)[:, :: 1 if rng.random() < 0.5 else -1]


def line(rng: Generator, width: int = 320, height: int = 48) -> Array:
    """A line of dark text on a light ground, as a scanner sees it."""
    font = ImageFont.truetype(str(_font(rng)), int(rng.integers(*FONT_SIZES)))
    ground, ink = (tuple(map(int, rng.integers(*bounds, 3))) for bounds in ((180, 256), (0, 90)))
    image = Image.new("RGB", (width, height), ground)
    draw, text = ImageDraw.Draw(image), " ".join(words(rng, 12))
    while draw.textlength(text, font) > width - 8:
        text = text[:-1]
    draw.text((6, int(rng.integers(2, 10))), text, ink, font)
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1))))
    return np.clip(np.asarray(image) + rng.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8)


def page(rng: Generator, size: int = 320) -> Array:
    """Lines of text of several sizes, on a photograph or a plain ground."""
    photo = rng.random() < 0.5
    ground = tuple(map(int, rng.integers(200, 256, 3)))
    image = Image.fromarray(photograph(rng, size)) if photo else Image.new("RGB", (size, size), ground)
    draw, y = ImageDraw.Draw(image), 10
    while y < size - 40:
        height = int(rng.integers(14, 36))
        font = ImageFont.truetype(str(_font(rng)), height)
        ink = tuple(map(int, rng.integers(0, 256 if photo else 120, 3)))
        draw.text((int(rng.integers(5, 60)), y), " ".join(words(rng, int(rng.integers(1, 6)))), ink, font)
        y += height + int(rng.integers(6, 40))
    return np.asarray(image)


def words(rng: Generator, count: int) -> list[str]:
    """Words of Python's manual that follow each other."""
    text = _prose()
    start = int(rng.integers(len(text) - count))
    return text[start : start + count]


@cache
def _prose() -> list[str]:
    return " ".join(topics[name] for name in sorted(topics)).split()


@cache
def _opened(name: str) -> Image.Image:
    folders = (
        packaged("skimage/data"),
        Path(matplotlib.get_data_path(), "sample_data"),
        Path(sklearn.__path__[0], "datasets/images"),
    )
    return Image.open(next(path for path in (one / name for one in folders) if path.exists())).convert("RGB")


def _font(rng: Generator) -> Path:
    fonts = sorted(Path(matplotlib.get_data_path(), "fonts/ttf").glob("DejaVuS*.ttf"))
    return fonts[int(rng.integers(len(fonts)))]
