"""What all models share: the normalisation layer and the base class that carries the architecture."""

import torch
from torch import Tensor, nn

from muquant.models.architecture import Architecture


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
