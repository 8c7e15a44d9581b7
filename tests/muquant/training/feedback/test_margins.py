"""Margins against a closed form, and against trying every step of every ray."""

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from muquant import InputError
from muquant.data import Dataset
from muquant.training.feedback import margins
from muquant.training.feedback.directions import orthonormal

if TYPE_CHECKING:
    from tests.muquant.training.feedback.conftest import Linear

CAP, BISECTIONS, RAYS = 6.0, 7, 64
UNIT = CAP / 2**BISECTIONS


def draw(images: Tensor, seed: int = 1, rays: int = RAYS) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    directions = torch.stack([orthonormal(images[0].numel(), rays, generator) for _ in images])
    return directions.reshape(len(images), rays, *images.shape[1:])


@pytest.fixture(scope="module")
def scan(net: nn.Module, quarters: tuple[Tensor, Tensor]) -> Tensor:
    """Whether the label has changed, bool [24, RAYS, 128]: after 1 to 128 steps, in every direction."""
    images, labels = quarters
    steps = (torch.arange(1, 2**BISECTIONS + 1) * UNIT)[:, None, None, None]
    with torch.no_grad():
        return torch.stack(
            [
                torch.stack([net((image + steps * ray).clamp(0, 1)).argmax(1) != label for ray in rays])
                for image, label, rays in zip(images, labels, draw(images), strict=True)
            ]
        )


@pytest.mark.parametrize("keep", [1, 5, 13, RAYS])
def test_the_smallest_margins_are_those_of_the_exhaustive_search(
    keep: int, net: nn.Module, quarters: tuple[Tensor, Tensor], scan: Tensor
) -> None:
    once = (scan.diff(dim=2).sum(2) <= 1).all(1)  # where a label changes to and fro, "the" change is open
    assert int(once.sum()) >= 15
    steps = torch.where(scan.any(2), scan.int().argmax(2) + 1, torch.inf)
    expected = steps.sort(dim=1, stable=True)
    found = margins(net, *quarters, draw(quarters[0]), keep=keep, cap=CAP, bisections=BISECTIONS)
    values = (expected.values * UNIT)[once, :keep]
    torch.testing.assert_close(found.values[once], values, rtol=1e-6, atol=0)
    finite = values.isfinite()
    assert bool(finite.any())
    torch.testing.assert_close(found.rays[once][finite], expected.indices[once, :keep][finite])


def test_a_label_that_changes_to_and_fro_is_reported_at_one_of_its_changes(
    net: nn.Module, quarters: tuple[Tensor, Tensor], scan: Tensor
) -> None:
    found = margins(net, *quarters, draw(quarters[0]), keep=20, cap=CAP, bisections=BISECTIONS)
    finite = found.values.isfinite()
    rows = torch.arange(24)[:, None].expand(-1, 20)[finite]
    rays, place = found.rays[finite], (found.values[finite] / UNIT).round().long() - 1
    before = torch.cat([torch.zeros_like(scan[:, :, :1]), scan], dim=2)
    assert bool(scan[rows, rays, place].all())
    assert not bool(before[rows, rays, place].any())


def test_margins_of_a_linear_model_have_a_closed_form(linear: "Linear", grey: Dataset) -> None:
    images, labels, cap = grey.inputs(), grey.labels, 0.4
    directions = draw(images)
    found = margins(linear, images, labels, directions, cap=cap, bisections=12)
    right = torch.arange(len(labels)) % 10 != 0
    values = torch.full_like(found.values, torch.nan).scatter(1, found.rays, found.values)[right]
    exact = linear.margins(images, labels, directions)[right]
    within = exact <= cap
    assert 0.1 < float(within.float().mean()) < 0.9
    assert bool(values[~within].isinf().all())
    excess = (values - exact)[within]
    assert float(excess.min()) > -5e-5
    assert float(excess.max()) < cap / 2**12 + 5e-5


def test_margins_are_in_ascending_order_with_their_rays(linear: "Linear", grey: Dataset) -> None:
    images, labels = grey.inputs(), grey.labels
    found = margins(linear, images, labels, draw(images), keep=9, cap=0.4)
    assert bool((found.values[:, 1:] >= found.values[:, :-1]).all())
    assert all(len(set(rays)) == 9 for rays in found.rays.tolist())


def test_a_misclassified_image_has_margin_zero(linear: "Linear", grey: Dataset) -> None:
    found = margins(linear, grey.inputs(), grey.labels, draw(grey.inputs()), keep=3, cap=0.4)
    assert [row for row, value in enumerate(found.values[:, 2].tolist()) if value == 0] == [*range(0, 80, 10)]


def test_black_pixels_lose_no_light(linear: "Linear") -> None:
    generator = torch.Generator().manual_seed(6)
    images = 0.5 * (torch.rand(40, 1, 8, 8, generator=generator) < 0.5).float()
    labels, directions, cap = linear(images).argmax(1), draw(images), 0.9
    found = margins(linear, images, labels, directions, cap=cap, bisections=12)
    values = torch.full_like(found.values, torch.nan).scatter(1, found.rays, found.values)
    moving = directions.where((images > 0)[:, None], directions.clamp(min=0))
    exact = linear.margins(images, labels, moving)
    within = exact <= cap
    assert 0.05 < float(within.float().mean()) < 0.95
    assert bool(values[~within].isinf().all())
    torch.testing.assert_close(values[within], exact[within].float(), rtol=0, atol=cap / 2**12 + 1e-5)


def test_forwards_are_counted_and_inputs_stay_in_range(linear: "Linear", grey: Dataset) -> None:
    found = margins(linear, grey.inputs(), grey.labels, draw(grey.inputs()), keep=5, batch_size=50)
    assert int(found.forwards.sum()) == sum(map(len, linear.shown))
    assert max(map(len, linear.shown)) == 50
    assert all(bool(((shown >= 0) & (shown <= 1)).all()) for shown in linear.shown)
    assert found.forwards[0] == 1


def test_the_batch_size_does_not_matter(net: nn.Module, quarters: tuple[Tensor, Tensor]) -> None:
    results = [margins(net, *quarters, draw(quarters[0]), keep=10, batch_size=size) for size in (7, 1000)]
    for name in ("values", "rays", "forwards"):
        torch.testing.assert_close(getattr(results[0], name), getattr(results[1], name), rtol=0, atol=0)


def test_the_model_gets_its_mode_and_weights_back(net: nn.Module, quarters: tuple[Tensor, Tensor]) -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), net).train()
    net.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    margins(model, *quarters, draw(quarters[0]), keep=2)
    assert [module.training for module in (model, model[0], net)] == [True, True, False]
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(3, 1, 8, 8)}, r"found \[3, 1, 8, 8\], \[2\] and \[2, 4, 1, 8, 8\]"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"labels \[N\] and directions"),
        ({"directions": torch.zeros(2, 4, 64)}, r"directions \[N, D, \.\.\.\], found"),
        ({"keep": 5}, "expected to keep 1 to 4, the directions given, found 5"),
        ({"keep": 0}, "expected to keep 1 to 4, the directions given, found 0"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str, linear: "Linear") -> None:
    images = torch.full((2, 1, 8, 8), 0.5)
    arguments = {
        "images": images,
        "labels": torch.zeros(2, dtype=torch.int64),
        "directions": draw(images, rays=4),
    }
    with pytest.raises(InputError, match=message):
        margins(linear, **(arguments | change))  # type: ignore[arg-type]


def test_outputs_that_are_not_finite_are_refused(quarters: tuple[Tensor, Tensor]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    nn.init.constant_(model[1].weight, torch.nan)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected finite logits"):
        margins(model, *quarters, draw(quarters[0]))
