"""Bounds against closed forms, points drawn from the ball, attacks, and arithmetic in float32."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn
from torch.nn import functional

import muquant
from muquant import InputError
from muquant.attacks import PGD, TorchTarget
from muquant.certification import BOUNDS, Certificate, certify
from muquant.certification.operations import Range
from muquant.certification.trace import traced
from muquant.models import build_model


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Residual(nn.Module):
    """Two ways that meet again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + functional.relu(self.bn(self.conv(x)))
        return found


class Scaled(nn.Module):
    """Constants of every kind."""

    def forward(self, x: Tensor) -> Tensor:
        return ((x - torch.tensor([0.3, 0.1])[:, None, None]) / 0.5 + 0.25) * -2.0


PARTS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Conv2d(2, 2, 3, stride=1, padding=1),
    "strided": lambda: nn.Conv2d(2, 2, 2, dilation=1, groups=2),
    "relu": nn.ReLU,
    "max pool": lambda: nn.MaxPool2d(2, stride=1),
    "padded max pool": lambda: nn.MaxPool2d(3, stride=1, padding=1),
    "average": lambda: nn.AvgPool2d(2, stride=1),
    "batch norm": lambda: nn.BatchNorm2d(2),
    "residual": lambda: Residual(2),
    "scaled": Scaled,
    "dropout": nn.Dropout,
}


def network(parts: list[str], seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = nn.Sequential(*(PARTS[part]() for part in parts))
        for module in body.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
                module.running_mean = torch.randn(2)
                module.running_var = torch.rand(2) + 0.5
        size = body.eval()(torch.zeros(1, 2, 6, 6)).flatten(1).shape[1]
        return nn.Sequential(body, nn.Flatten(), nn.Linear(size, 5), nn.ReLU(), nn.Linear(5, 3)).eval()


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Least of the label's logit minus the others'."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return logits.gather(1, labels[:, None])[:, 0] - others.amax(1)


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(list(PARTS)), max_size=5),
    st.integers(0, 2**31),
    st.sampled_from([0.001, 0.03, 0.2]),
)
def test_no_point_of_the_ball_has_a_smaller_margin(parts: list[str], seed: int, epsilon: float) -> None:
    module = network(parts, seed)
    images = torch.rand(4, 2, 6, 6, generator=seeded(seed))
    labels = module(images).argmax(1)
    found = {bound: certify(module, images, labels, epsilon, bound=bound) for bound in BOUNDS}
    exact = module.double()
    for scale, draw in product((1.0, 0.5), range(8)):
        moves = torch.rand(images.shape, generator=seeded(seed + draw)).double() * 2 - 1
        near = (images.double() + epsilon * scale * (moves.sign() if draw % 2 else moves)).clamp(0, 1)
        least = margins(exact(near), labels)
        for bound, certificate in found.items():
            assert bool((certificate.margins <= least + 1e-9).all()), bound
    assert bool((found["crown-ibp"].margins >= found["ibp"].margins - 1e-9).all())


def test_of_an_affine_network_bounds_are_exact() -> None:
    first, last = nn.Linear(12, 7).double(), nn.Linear(7, 3).double()
    module = nn.Sequential(nn.Flatten(), first, last)
    weight = (last.weight @ first.weight).detach().numpy()
    bias = (last.weight @ first.bias + last.bias).detach().numpy()
    images, labels = 0.3 + 0.4 * torch.rand(20, 3, 2, 2, generator=seeded(0)), torch.arange(20) % 3
    expected = []
    for image, label in zip(images.flatten(1).double().numpy(), labels.tolist(), strict=True):
        rows = weight[label] - weight
        least = rows @ image + bias[label] - bias - (0.1 + 1e-6) * np.abs(rows).sum(1)
        expected.append(np.delete(least, label).min())
    module.float()
    for bound in BOUNDS:
        found = certify(module, images, labels, 0.1, bound=bound)
        np.testing.assert_allclose(found.margins.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_one_hidden_layer_against_every_corner_of_its_pieces() -> None:
    """In one dimension the network is piecewise linear: its least value is at an end or at a kink."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, last = nn.Linear(1, 6).double(), nn.Linear(6, 2).double()
    module = nn.Sequential(first, nn.ReLU(), last)
    kinks = (-first.bias / first.weight[:, 0]).detach().clamp(0, 1)
    for start in torch.linspace(0.1, 0.9, 9).double():
        image = start.reshape(1, 1)
        for epsilon in (0.01, 0.3):
            points = torch.cat([kinks, image.flatten() - epsilon, image.flatten() + epsilon]).clamp(0, 1)
            inside = points[(points - start).abs() <= epsilon + 1e-12][:, None]
            least = margins(module.double()(inside), torch.zeros(len(inside), dtype=torch.int64)).min().item()
            found = certify(module.float(), image.float(), [0], epsilon).margins.item()
            assert found <= least + 1e-6
            if not ((kinks - start).abs() < epsilon + 1e-3).any():
                assert found == pytest.approx(least, abs=1e-4)


def test_a_pool_whose_winner_is_known_loses_nothing() -> None:
    pool = nn.MaxPool2d(2)
    head = nn.Linear(4, 2, bias=False)
    module = nn.Sequential(pool, nn.Flatten(), head)
    image = torch.full((1, 1, 4, 4), 0.2)
    image[..., ::2, ::2] = 0.7
    rows = (head.weight[0] - head.weight[1]).detach()
    expected = float(rows.sum() * 0.7 - (0.1 + 1e-6) * rows.abs().sum())
    assert certify(module, image, [0], 0.1).margins.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("zeros", [0.0, 0.9], ids=["dense", "sparse"])
def test_what_rounding_does_stays_below_its_bound(zeros: float, seed: int) -> None:
    """The same network in float32, with sums in another order, against double precision."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first, last = nn.Linear(400, 300), nn.Linear(300, 4)
        first.weight.data *= 30 * (torch.rand(300, 400) >= zeros)
    module = nn.Sequential(first, nn.ReLU(), last).eval()
    images = torch.rand(10, 400, generator=seeded(seed))
    exact = module.double()(images.double()).detach()
    module.float().requires_grad_(requires_grad=False)
    values = images.double()
    error = traced(module, Range(values, values, torch.zeros_like(values))).range.error
    assert error is not None
    order = torch.randperm(400, generator=seeded(seed))
    hidden = functional.relu(images[:, order] @ first.weight[:, order].T + first.bias)
    for computed in (module(images), last(hidden)):
        wrong = (computed.double() - exact).abs()
        assert float(wrong.max()) > 0
        assert bool((wrong <= error).all())


def test_what_is_multiplied_by_nothing_is_not_rounded() -> None:
    """gamma_n of the terms that are not 0, and of the bias; nothing behind a ReLU that is never open."""
    unit = 1.01 * 2.0**-24
    layer, conv = nn.Linear(50, 3).double(), nn.Conv2d(2, 3, 3, padding=1, bias=False).double()
    layer.weight.data[:, 7:] = 0
    layer.bias.data = torch.tensor([0.0, 0.0, -1e3], dtype=torch.float64)
    x = torch.rand(4, 50, generator=seeded(0)).double()
    x[:, :3] = 0  # four terms are left
    found = traced(nn.Sequential(layer, nn.ReLU()), Range(x, x, torch.zeros_like(x))).range.error
    assert found is not None
    reach = (layer.weight.abs() * x[:, None]).sum(2) + layer.bias.abs()
    expected = 5 * unit / (1 - 5 * unit) * reach
    shut = torch.relu(layer(x) + expected)  # as far as it may open at most
    torch.testing.assert_close(found, torch.minimum(expected, shut).detach())
    assert bool((found[:, 2] == 0).all())
    conv.weight.data[:, 1] = 0
    image = torch.rand(1, 2, 5, 5, generator=seeded(1)).double()
    flat = nn.Sequential(conv, nn.Flatten())
    found = traced(flat, Range(image, image, torch.zeros_like(image))).range.error
    assert found is not None
    terms = torch.conv2d(torch.ones(1, 1, 5, 5), torch.ones(3, 1, 3, 3), padding=1).double() + 1
    reach = torch.conv2d(image, conv.weight.abs(), padding=1)
    torch.testing.assert_close(found, (terms * unit / (1 - terms * unit) * reach).flatten(1).detach())


@pytest.fixture(scope="module")
def certified() -> tuple[nn.Module, Tensor, Tensor, Certificate]:
    """A small network that was trained to be robust, its images, what is proven of them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build_model("cnn4-small", (1, 8, 8), 2)
        images = torch.rand(60, 1, 8, 8) * 0.3
        labels = torch.arange(60) % 2
        images[labels == 1] += 0.7
        optimizer = torch.optim.Adam(module.parameters(), lr=0.003)
        for _ in range(40):
            loss = functional.cross_entropy(module(images), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return module.eval(), images, labels, certify(module, images, labels, 0.05)


def test_no_attack_breaks_what_is_certified(
    certified: tuple[nn.Module, Tensor, Tensor, Certificate],
) -> None:
    module, images, labels, found = certified
    assert found.accuracy > 0.5
    assert bool(found.correct[found.certified].all())
    attack = PGD(epsilon=0.05, steps=20, loss="margin").attack(TorchTarget(module), images, labels)
    assert not bool((attack.success & found.certified).any())
    far = certify(module, images, labels, 0.45)
    broken = PGD(epsilon=0.45, steps=20, loss="margin").attack(TorchTarget(module), images, labels)
    assert int(broken.success.sum()) > 0
    assert far.accuracy <= broken.accuracy


def test_a_compressed_network_is_certified_as_it_decodes(
    certified: tuple[nn.Module, Tensor, Tensor, Certificate],
) -> None:
    module, images, labels, _ = certified
    compressed = muquant.compress(module, flat=True, check=False)
    twin = build_model("cnn4-small", (1, 8, 8), 2)
    decoded = {name: tensor.dequantize() for name, tensor in compressed.tensors.items()}
    twin.load_state_dict({**module.state_dict(), **decoded})
    found, expected = (certify(each, images, labels, 0.02) for each in (compressed.module, twin))
    torch.testing.assert_close(found.margins, expected.margins, rtol=0, atol=0)


def test_the_module_is_left_as_it_was() -> None:
    module = build_model("wrn-10-1", (1, 8, 8), 3).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    calls: list[tuple[int, int]] = []
    certify(
        module,
        torch.rand(60, 1, 8, 8),
        torch.zeros(60, dtype=torch.int64),
        0.01,
        bound="ibp",
        on_progress=lambda done, total: calls.append((done, total)),
    )
    assert all(each.training for each in module.modules())
    assert calls == [(50, 60), (60, 60)]
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


class Sigmoid(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x).flatten(1)


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * x).flatten(1)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Sigmoid(), "sigmoid, of which no bounds"),
        (Squared(), "multiplies"),
        (nn.Flatten(0), "stay apart"),
        (nn.ReLU(), "expected logits"),
        (nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.Flatten()), "ceil_mode"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_bounds_is_named(module: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=message):
        certify(module, torch.rand(2, 1, 2, 2), [0, 1], 0.1)


@pytest.mark.parametrize(
    ("images", "labels", "bound", "message"),
    [
        (torch.rand(2, 4) + 1, [0, 1], "ibp", "expected values in"),
        (torch.rand(2, 4), [0, 9], "ibp", "labels: expected 0 to 2"),
        (torch.rand(2, 4), [0], "ibp", "labels: expected int64"),
        (torch.rand(2, 4), [0, 1], "milp", "milp"),
    ],
)
def test_bad_arguments_are_named(images: Tensor, labels: list[int], bound: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        certify(nn.Linear(4, 3), images, labels, 0.1, bound=bound)
