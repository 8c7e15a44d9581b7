"""`Architecture`: a model without its weights, as a value that JSON can carry; and the base of all models."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from muquant.base.errors import InputError
from muquant.base.values import field_values

_MAX_CHANNELS = 64
_SIDES = (4, 1024)
_CLASSES = (2, 100_000)


@dataclass(frozen=True)
class Architecture:
    """A model without its weights.

    Attributes:
        name: a name of `MODELS`.
        input_shape: channels, height and width of one image; 1..64, 4..1024 and 4..1024.
        classes: the number of classes, 2..100,000.
        mean: what is subtracted from every channel, finite.
        std: what every channel is divided by after that, finite and above 0.

    Raises:
        InputError: a value is of another type or out of range.
    """

    name: str
    input_shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or len(self.name) > 64 or not self.name.isprintable():
            raise InputError(
                f"model name: expected a short text, found {self.name!r:.80}; give cnn4 for example"
            )
        shape = self.input_shape
        if (
            not isinstance(shape, tuple)
            or len(shape) != 3
            or not _is_int(shape[0], 1, _MAX_CHANNELS)
            or not all(_is_int(side, *_SIDES) for side in shape[1:])
        ):
            raise InputError(
                f"input shape of model {self.name}: expected channels in 1..{_MAX_CHANNELS}, height and "
                f"width in {_SIDES[0]}..{_SIDES[1]}, found {shape}; give (1, 28, 28) for example"
            )
        if not _is_int(self.classes, *_CLASSES):
            raise InputError(
                f"classes of model {self.name}: expected a number in {_CLASSES[0]}..{_CLASSES[1]}, found "
                f"{self.classes!r}; give the number of classes of the data"
            )
        for field, low in (("mean", -math.inf), ("std", 0.0)):
            values = getattr(self, field)
            if not (
                isinstance(values, tuple)
                and len(values) == shape[0]
                and all(_is_number(value) and low < value < math.inf for value in values)
            ):
                limit = " above 0" if low == 0 else ""
                raise InputError(
                    f"{field} of model {self.name}: expected {shape[0]} finite numbers{limit}, one for each "
                    f"channel, found {values}; correct them"
                )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; `from_dict` turns them back."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, document: object) -> "Architecture":
        """Read what `to_dict` wrote, from a source that is not trusted.

        Raises:
            InputError: a field is missing, unknown, of another type or out of range.
        """
        return cls(**field_values(cls, document, "architecture"))


class Classifier(nn.Module):
    """Base of every model of the registry.

    Attributes:
        architecture: builds the same network again.
        normalize: the first layer; a subclass calls it at the start of `forward`.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.normalize = Normalize(architecture.mean, architecture.std)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes] of images [N, C, H, W] in [0, 1]."""
        raise NotImplementedError


class Normalize(nn.Module):
    """`(x - mean) / std` for every channel: [N, C, H, W] -> [N, C, H, W].

    A layer of the model, so that whoever calls it, attacks it or exports it works on inputs in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise a batch of images in [0, 1]."""
        return (x - self.mean) / self.std


def _is_int(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30
