"""Wide residual networks (Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016), pre-activation."""

import re

from torch import Tensor, nn
from torch.nn import functional

from muquant.base.errors import InputError
from muquant.models.architecture import Architecture, Classifier

_MAX_DEPTH = 1000
_MAX_WIDTH = 64


def build_wide_resnet(architecture: Architecture, match: re.Match[str]) -> Classifier:
    """`wrn-D-K`: depth D = 6 n + 4 with n >= 1, and K times the 16, 32, 64 channels of a plain ResNet.

    Raises:
        InputError: D is not such a depth or above 1,000, or K is not in 1..64.
    """
    depth, width = int(match[1]), int(match[2])
    if depth % 6 != 4 or not 10 <= depth <= _MAX_DEPTH:
        raise InputError(
            f"model {architecture.name}: expected a depth of 6n + 4 (10, 16, 22, 28, 34, 40, ... up to "
            f"{_MAX_DEPTH}), found {depth}; choose one of these"
        )
    if not 1 <= width <= _MAX_WIDTH:
        raise InputError(
            f"model {architecture.name}: expected a widening factor in 1..{_MAX_WIDTH}, found {width}; "
            f"choose one of these"
        )
    return WideResNet(architecture, (depth - 4) // 6, width)


class WideResNet(Classifier):
    """A 3x3 convolution, three groups of `blocks` blocks at 1, 1/2, 1/4 of the resolution, a linear layer."""

    def __init__(self, architecture: Architecture, blocks: int, width: int) -> None:
        super().__init__(architecture)
        widths = [16 * width, 32 * width, 64 * width]
        self.conv1 = _conv3x3(architecture.input_shape[0], 16)
        self.group1 = _group(blocks, 16, widths[0], stride=1)
        self.group2 = _group(blocks, widths[0], widths[1], stride=2)
        self.group3 = _group(blocks, widths[1], widths[2], stride=2)
        self.bn = nn.BatchNorm2d(widths[2])
        self.fc = nn.Linear(widths[2], architecture.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes] of images [N, C, H, W] in [0, 1]."""
        x = self.conv1(self.normalize(x))
        x = self.group3(self.group2(self.group1(x)))
        x = functional.relu(self.bn(x)).mean(dim=(2, 3))
        return self.fc(x)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Two 3x3 convolutions, each behind BatchNorm and ReLU: [N, C, H, W] -> [N, D, H / stride, W / stride].

    Where the number of channels changes, the shortcut is a 1x1 convolution of the pre-activated input.
    """

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = _conv3x3(channels, out_channels, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = _conv3x3(out_channels, out_channels)
        self.shortcut = (
            nn.Conv2d(channels, out_channels, kernel_size=1, stride=stride, bias=False)
            if channels != out_channels
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Residual plus shortcut."""
        activated = functional.relu(self.bn1(x))
        residual = self.conv2(functional.relu(self.bn2(self.conv1(activated))))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        return residual + shortcut  # type: ignore[no-any-return]


def _group(blocks: int, channels: int, out_channels: int, stride: int) -> nn.Sequential:
    first = Block(channels, out_channels, stride)
    return nn.Sequential(first, *(Block(out_channels, out_channels, 1) for _ in range(blocks - 1)))


def _conv3x3(channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
