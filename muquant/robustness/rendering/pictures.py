"""Images under attack as PNGs inside the page: clean, perturbed, and what lies between them."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from muquant.robustness.report import Picture

BUDGET = 900_000
"""Values in all pictures of a page together; where there are more, they are shown smaller."""

FACTORS = (1000, 500, 200, 100, 50, 20, 10, 5, 2, 1, 0.5)
"""By what a difference may be amplified; by the last, none leaves the range."""

_ROUNDING = 1e-4
"""By how much an amplified difference in float32 may leave the range: far less than a level of a pixel."""


@dataclass(frozen=True)
class Card:
    """A picture and its three images as data URIs.

    Attributes:
        picture: what is shown.
        clean: the clean image.
        perturbed: the perturbed one.
        difference: 0.5 + factor (perturbed - clean).
        factor: the largest of `FACTORS` for which no value leaves [0, 1].
    """

    picture: Picture
    clean: str
    perturbed: str
    difference: str
    factor: float


def exhibits(pictures: Sequence[Picture]) -> dict[str, list[Card]]:
    """Name of a model -> its cards, both in the order of the pictures."""
    shrink, found = shrinkage(pictures), dict[str, list[Card]]()
    for picture in pictures:
        found.setdefault(picture.model, []).append(_card(picture, shrink))
    return found


def shrinkage(pictures: Sequence[Picture]) -> int:
    """The sides of all pictures are divided by this, so that they keep within `BUDGET`."""
    values = 3 * sum(picture.clean.numel() for picture in pictures)
    return max(1, math.ceil(math.sqrt(values / BUDGET)))


def _card(picture: Picture, shrink: int) -> Card:
    difference = picture.perturbed - picture.clean
    largest = float(difference.abs().max())
    factor = (
        next((factor for factor in FACTORS if factor * largest < 0.5 + _ROUNDING), FACTORS[-1])
        if largest
        else 1
    )
    shown = 0.5 + factor * difference
    return Card(
        picture, _png(picture.clean, shrink), _png(picture.perturbed, shrink), _png(shown, shrink), factor
    )


def _png(image: Tensor, shrink: int) -> str:
    """A data URI of an image [C, H, W] in [0, 1]; where it is neither grey nor RGB, its channels' mean."""
    pixels = image.detach().float().cpu()
    if len(pixels) not in (1, 3):
        pixels = pixels.mean(0, keepdim=True)
    if shrink > 1:
        pixels = avg_pool2d(pixels, shrink, ceil_mode=True)
    values = (pixels * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).squeeze(2).numpy()
    file = io.BytesIO()
    Image.fromarray(values).save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
