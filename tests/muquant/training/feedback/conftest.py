import pytest
import torch
from torch import Tensor, nn

from muquant.data import Dataset


class Linear(nn.Module):
    """Four classes by linear logits: every margin has a closed form where no pixel meets 0 or 1."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 4)
        generator = torch.Generator().manual_seed(1)
        weight = torch.randn(4, 64, generator=generator)
        self.linear.load_state_dict({"weight": weight, "bias": -0.5 * weight.sum(1)})
        self.shown: list[Tensor] = []

    def forward(self, inputs: Tensor) -> Tensor:
        assert not self.training
        self.shown.append(inputs)
        output: Tensor = self.linear(inputs.flatten(1))
        return output

    def margins(self, images: Tensor, labels: Tensor, directions: Tensor) -> Tensor:
        """Smallest t > 0 at which another logit reaches that of the label, [N, D], in float64."""
        weight, bias = self.linear.weight.double(), self.linear.bias.double()
        logits = images.double().flatten(1) @ weight.T + bias
        slopes = directions.double().flatten(2) @ weight.T
        own, own_slope = (
            logits.gather(1, labels[:, None]),
            slopes.gather(2, labels[:, None, None].expand(-1, slopes.shape[1], 1)),
        )
        meets = (own - logits)[:, None] / (slopes - own_slope)
        return torch.where(meets > 0, meets, torch.inf).amin(2).detach()


@pytest.fixture
def linear() -> Linear:
    return Linear().eval()


@pytest.fixture
def grey(linear: Linear) -> Dataset:
    """80 grey images whose pixels are at 0.44 to 0.56; every tenth is mislabelled."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(112, 144, (80, 1, 8, 8), generator=generator).to(torch.uint8)
    labels = linear(images / 255).argmax(1)
    labels[::10] = (labels[::10] + 1) % 4
    linear.shown.clear()
    return Dataset("grey", "train", images, labels, ("a", "b", "c", "d"))


@pytest.fixture(scope="session")
def quarters() -> tuple[Tensor, Tensor]:
    """24 noisy images [1, 8, 8] of four classes, each a bright quarter, with pixels at both bounds."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(24) % 4
    images = (torch.rand(24, 1, 8, 8, generator=generator) * 0.6 - 0.2).clamp(0, 1)
    for image, label in zip(images, labels.tolist(), strict=True):
        top, left = 4 * (label // 2), 4 * (label % 2)
        image[0, top : top + 4, left : left + 4] += 0.6
    return images.clamp(0, 1), labels


@pytest.fixture(scope="session")
def net(quarters: tuple[Tensor, Tensor]) -> nn.Module:
    """A small net trained on `quarters`, which it classifies without a mistake."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 4)
        )
        optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
        for _ in range(60):
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(module(quarters[0]), quarters[1]))
            optimizer.step()
    assert bool((module.eval()(quarters[0]).argmax(1) == quarters[1]).all())
    return module
