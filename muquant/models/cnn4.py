"""The classic four-layer MNIST network: two convolutions, two fully connected layers."""

import re

from torch import Tensor, nn
from torch.nn import functional

from muquant.models.architecture import Architecture, Classifier


def build_cnn4(architecture: Architecture, match: re.Match[str]) -> Classifier:
    """32 and 64 channels, 1,024 hidden units: 3.24 million weights at 1x28x28."""
    return CNN4(architecture, (32, 64), 1024)


def build_cnn4_small(architecture: Architecture, match: re.Match[str]) -> Classifier:
    """16 and 32 channels, 100 hidden units: 0.16 million weights at 1x28x28."""
    return CNN4(architecture, (16, 32), 100)


def build_cnn4_strided(architecture: Architecture, match: re.Match[str]) -> Classifier:
    """32 and 64 channels, 512 hidden units, no pooling: 1.64 million weights at 1x28x28."""
    return StridedCNN4(architecture, (32, 64), 512)


class CNN4(Classifier):
    """conv 3x3, max-pool 2, ReLU, conv 3x3, max-pool 2, ReLU, fully connected, ReLU, fully connected.

    ReLU after the pooling gives the same values as before it, and has a quarter of the work.
    """

    def __init__(self, architecture: Architecture, widths: tuple[int, int], hidden: int) -> None:
        super().__init__(architecture)
        channels, height, width = architecture.input_shape
        self.conv1 = nn.Conv2d(channels, widths[0], kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(widths[0], widths[1], kernel_size=3, padding=1)
        self.fc1 = nn.Linear(widths[1] * (height // 4) * (width // 4), hidden)
        self.fc2 = nn.Linear(hidden, architecture.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes] of images [N, C, H, W] in [0, 1]."""
        x = self.normalize(x)
        x = functional.relu(functional.max_pool2d(self.conv1(x), 2))
        x = functional.relu(functional.max_pool2d(self.conv2(x), 2))
        return self.fc2(functional.relu(self.fc1(x.flatten(1))))  # type: ignore[no-any-return]


class StridedCNN4(Classifier):
    """conv 4x4 of stride 2, ReLU, conv 4x4 of stride 2, ReLU, fully connected, ReLU, fully connected.

    The kind that certified training takes (Wong and Kolter, "Provable defenses against adversarial examples
    via the convex outer adversarial polytope", ICML 2018): bounds take less than half the time of
    those of `CNN4`.
    """

    def __init__(self, architecture: Architecture, widths: tuple[int, int], hidden: int) -> None:
        super().__init__(architecture)
        channels, height, width = architecture.input_shape
        self.conv1 = nn.Conv2d(channels, widths[0], kernel_size=4, stride=2, padding=1)
        self.conv2 = nn.Conv2d(widths[0], widths[1], kernel_size=4, stride=2, padding=1)
        self.fc1 = nn.Linear(widths[1] * (height // 4) * (width // 4), hidden)
        self.fc2 = nn.Linear(hidden, architecture.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes] of images [N, C, H, W] in [0, 1]."""
        x = functional.relu(self.conv1(self.normalize(x)))
        x = functional.relu(self.conv2(x))
        return self.fc2(functional.relu(self.fc1(x.flatten(1))))  # type: ignore[no-any-return]
