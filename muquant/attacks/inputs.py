"""What attacks are given, in any form, and what a model takes instead of images in [0, 1]."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from muquant.base.errors import InputError

Values = float | Sequence[float] | NDArray[np.floating] | Tensor
"""One number, or one for each channel."""

TOLERANCE = 1e-6
"""By how much of their range inputs may lie outside of it, as rounding leaves them."""


class InputSpace(nn.Module):
    """Turns images [N, ...] in [0, 1], in which attacks work, into what a model is called with.

    Args:
        bounds: the least and the greatest value that inputs have, (0, 255) for example; numbers, or one for
            each channel. Attacks move 0 and 1 there, so that an epsilon is a share of that range, whatever it
            is.
        preprocessing: the mean that the model wants subtracted from inputs within the bounds, and the
            standard deviation that it wants them divided by after that; numbers, or one for each channel.

    Raises:
        InputError: a value is not finite, the bounds are not apart, or the deviation is not above 0.
    """

    def __init__(
        self, bounds: tuple[Values, Values] = (0.0, 1.0), preprocessing: tuple[Values, Values] | None = None
    ) -> None:
        super().__init__()
        self.low, high = _pair("bounds", "low, high", bounds)
        self.width = high - self.low
        if not bool((self.width > 0).all()):
            raise InputError(f"bounds: expected low below high, found {bounds}; give (0, 255) for example")
        self.mean, self.std = _pair("preprocessing", "mean, std", preprocessing or (0.0, 1.0))
        if not bool((self.std > 0).all()):
            raise InputError(f"preprocessing: expected deviations above 0, found {self.std.tolist()}")
        self.bounded = bool((self.low != 0).any() or (self.width != 1).any())
        self.normalised = bool((self.mean != 0).any() or (self.std != 1).any())

    def forward(self, images: Tensor) -> Tensor:
        """Return what the model takes, for images in [0, 1]."""
        inputs = self.scaled(images)
        if not self.normalised:
            return inputs
        return (inputs - _over(self.mean, inputs)) / _over(self.std, inputs)

    def scaled(self, images: Tensor) -> Tensor:
        """Return inputs within the bounds, for images in [0, 1]."""
        return images * _over(self.width, images) + _over(self.low, images) if self.bounded else images

    def unscaled(self, inputs: Tensor) -> Tensor:
        """Return images in [0, 1], for inputs within the bounds.

        Raises:
            InputError: some lie outside, or are NaN.
        """
        images = (inputs - _over(self.low, inputs)) / _over(self.width, inputs) if self.bounded else inputs
        if not images.is_floating_point():
            images = images.float()
        flat = images.detach().flatten(1)
        good = (flat.amin(1) >= -TOLERANCE) & (flat.amax(1) <= 1 + TOLERANCE)  # false for NaN
        if not good.all():
            low, high = (float(value) for value in inputs.detach().aminmax())
            raise InputError(
                f"inputs: expected values in {self}, found {low:g} to {high:g}, outside in "
                f"{int((~good).sum())} of {len(good)} images; scale them, or state their range, as in "
                "TorchTarget(model, bounds=(0, 255)); where the model takes normalised images, give them as "
                "they are before that, and preprocessing=(mean, std)"
            )
        return images.clamp(0, 1) if self.bounded or bool(((flat < 0) | (flat > 1)).any()) else images

    def extra_repr(self) -> str:
        """All values, for fingerprints."""
        parts = {"low": self.low, "width": self.width, "mean": self.mean, "std": self.std}
        return ", ".join(f"{name}={values.tolist()}" for name, values in parts.items())

    def __str__(self) -> str:
        """The bounds, such as "[0, 1]"."""
        return f"[{_text(self.low)}, {_text(self.low + self.width)}]"


def read_images(inputs: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> tuple[Tensor, Tensor]:
    """Return inputs [N, ...] and labels int64 [N] as tensors.

    Raises:
        InputError: they are no arrays of numbers, there are none, or the labels are not one class number from
            0 for each input.
    """
    inputs, labels = _tensor("inputs", inputs), _tensor("labels", labels)
    if not inputs.dim() or not len(inputs) or inputs.dim() < 2 or not inputs[0].numel():
        raise InputError(f"inputs: expected [N, ...] with at least one image, found {list(inputs.shape)}")
    whole = not labels.is_floating_point() and not labels.is_complex()
    if labels.shape != inputs.shape[:1] or not whole:
        raise InputError(
            f"labels: expected int64 [{len(inputs)}], found {str(labels.dtype).removeprefix('torch.')} "
            f"{list(labels.shape)}; give the number of its class for each input"
        )
    labels = labels.long()
    if int(labels.min()) < 0:
        raise InputError(f"labels: expected class numbers from 0, found {int(labels.min())}")
    return inputs, labels


def read_target_classes(target_classes: ArrayLike | Tensor | None, labels: Tensor) -> Tensor | None:
    """Return the classes that images of `labels`, int64 [N], should be taken for, int64 [N]; None of None.

    Raises:
        InputError: they are not one class number from 0 for each image, or one for all, or the label is one.
    """
    if target_classes is None:
        return None
    classes = _tensor("target_classes", target_classes).to(labels.device)
    whole = not classes.is_floating_point() and not classes.is_complex()
    if classes.shape not in ((), labels.shape) or not whole:
        raise InputError(
            f"target_classes: expected int64 [{len(labels)}], or one number, found "
            f"{str(classes.dtype).removeprefix('torch.')} {list(classes.shape)}; give each image the class "
            "that it should be taken for"
        )
    classes = classes.long().expand_as(labels)
    if int(classes.min()) < 0:
        raise InputError(f"target_classes: expected class numbers from 0, found {int(classes.min())}")
    same = int((classes == labels).sum())
    if same:
        raise InputError(
            f"target_classes: expected others than the labels, found the label in {same} of {len(labels)} "
            "images; leave these images out, or give them another class"
        )
    return classes


def _tensor(what: str, value: ArrayLike | Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value
    try:
        return torch.from_numpy(np.array(value, order="C"))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{what}: expected a tensor or an array of numbers, found {type(value).__name__}; convert it"
        ) from error


def _pair(what: str, form: str, pair: tuple[Values, Values]) -> tuple[Tensor, Tensor]:
    try:
        one, other = (torch.as_tensor(value, dtype=torch.float32).reshape(-1) for value in pair)
        if not (torch.isfinite(one).all() and torch.isfinite(other).all()) or not len(one) or not len(other):
            raise ValueError
        return one, other + torch.zeros_like(one)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{what}: expected ({form}), finite numbers or as many as there are channels, found {pair!r:.80}"
        ) from error


def _over(values: Tensor, images: Tensor) -> Tensor:
    """Shape one value, or one for each channel, so that it broadcasts over images [N, C, ...]."""
    if len(values) > 1 and len(values) != images.shape[1]:
        raise InputError(
            f"inputs: expected {len(values)} channels, for which bounds or preprocessing are given, found "
            f"shape {list(images.shape)}"
        )
    dtype = images.dtype if images.is_floating_point() else torch.float32
    return values.to(images.device, dtype).reshape(1, -1, *[1] * (images.dim() - 2))


def _text(values: Tensor) -> str:
    return ", ".join(f"{value:g}" for value in dict.fromkeys(values.tolist()))
