import pytest
import torch
from torch import Tensor, nn

from muquant.attacks import TorchTarget


class Counting(TorchTarget):
    """Counts images by itself."""

    count = 0

    def logits(self, inputs: Tensor) -> Tensor:
        self.count += len(inputs)
        return super().logits(inputs)


@pytest.fixture
def counting() -> type[Counting]:
    return Counting


@pytest.fixture(scope="session")
def data() -> tuple[Tensor, Tensor]:
    """60 noisy images [1, 8, 8] of four classes, each a bright quarter."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(60) % 4
    images = 0.2 + 0.2 * torch.rand(60, 1, 8, 8, generator=generator)
    for number, label in enumerate(labels.tolist()):
        top, left = 4 * (label // 2), 4 * (label % 2)
        images[number, 0, top : top + 4, left : left + 4] += 0.25
    return images, labels


@pytest.fixture(scope="session")
def net(data: tuple[Tensor, Tensor]) -> nn.Module:
    """A small smooth net trained on `data`, which it classifies without a mistake."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.Softplus(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(96, 4)
        )
        optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
        for _ in range(60):
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(module(data[0]), data[1]))
            optimizer.step()
    module.eval()
    assert bool((module(data[0]).argmax(1) == data[1]).all())
    return module


class Linear(nn.Module):
    """Two classes, logits (0, w x + b): the distance to the boundary is |w x + b| / ||w|| (dual norm)."""

    def __init__(self, shape: tuple[int, ...] = (1, 4, 4)) -> None:
        super().__init__()
        values = torch.Size(shape).numel()
        generator = torch.Generator().manual_seed(1)
        self.register_buffer("weight", torch.randn(values, generator=generator))
        self.weight: Tensor
        self.bias = float(-0.5 * self.weight.sum())

    def forward(self, inputs: Tensor) -> Tensor:
        score = inputs.flatten(1) @ self.weight + self.bias
        return torch.stack([torch.zeros_like(score), score], dim=1)

    def distance(self, inputs: Tensor, norm: str) -> Tensor:
        score = (inputs.flatten(1) @ self.weight + self.bias).abs()
        return score / (self.weight.abs().sum() if norm == "linf" else self.weight.norm())


@pytest.fixture
def linear() -> Linear:
    return Linear()


@pytest.fixture
def grey(linear: Linear) -> tuple[Tensor, Tensor]:
    """12 images at L2 distances of 0.1 to 0.4 from the boundary, whose way there meets no bound."""
    generator = torch.Generator().manual_seed(2)
    images = 0.45 + 0.1 * torch.rand(12, 16, generator=generator)
    normal = linear.weight / linear.weight.norm()
    wanted = torch.linspace(0.1, 0.4, 12) * torch.tensor([1.0, -1.0]).repeat(6)
    score = (images @ linear.weight + linear.bias) / linear.weight.norm()
    images = (images + (wanted - score)[:, None] * normal).reshape(12, 1, 4, 4)
    return images, linear(images).argmax(1)
