"""BatchNorm statistics follow what compression does to activations, where that helps."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import muquant
from muquant.compression.batch_norm import output_sqnr, reestimate_batch_norms
from muquant.compression.calibration import read_samples
from muquant.quantization.quality import ALL_LOST


def network() -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, bias=False),
        nn.BatchNorm2d(8, momentum=1.0),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 36, 5),
    )
    model(images(9, 256))  # statistics of its own
    return model.eval()


def images(seed: int, count: int) -> Tensor:
    return torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(seed)) + 1


def moved(model: Any) -> Any:
    other: Any = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.mul_(1.7)
    return other


def test_a_convolution_that_grew_is_normalized_as_before() -> None:
    model = network()
    other = moved(model)
    result = reestimate_batch_norms(other, model, read_samples(images(0, 70)), read_samples(images(1, 30)))
    assert result is not None
    assert result.taken
    assert result.layers == 1
    assert result.before < 20 < 40 < result.after
    norm, old = other[1], model[1]
    torch.testing.assert_close(norm.running_mean, 1.7 * old.running_mean, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(norm.running_var, 1.7**2 * old.running_var, rtol=1e-3, atol=0)
    assert not any(module.training for module in other.modules())
    assert norm.momentum == old.momentum
    assert int(norm.num_batches_tracked) == int(old.num_batches_tracked)


def test_the_same_network_keeps_its_statistics_bit_for_bit() -> None:
    model, other = network(), network()
    result = reestimate_batch_norms(other, model, read_samples(images(0, 70)), read_samples(images(1, 30)))
    assert result is not None
    assert not result.taken
    for name, value in other.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=0, atol=0)


def test_what_backfires_on_held_out_samples_is_undone() -> None:
    model = network()
    other = moved(model)
    with torch.no_grad():
        other[1].running_var.mul_(1.7**2)
        other[1].running_mean.mul_(1.7)  # as it should be already
        other[0].weight[:, 0].mul_(torch.where(torch.arange(8) > 3, 1.5, 1.0)[:, None, None])
    before = copy.deepcopy(other.state_dict())
    fit = images(0, 70)
    fit[:, 0] *= 30  # unlike what is held out
    result = reestimate_batch_norms(other, model, read_samples(fit), read_samples(images(1, 30)))
    assert result is not None
    assert not result.taken
    for name, value in other.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_compress_does_it_with_samples_unless_told_not_to() -> None:
    model = network()
    samples = images(2, 60)
    found: Any
    plain: Any
    found, plain = (muquant.compress(model, calibration=samples, corrections=each) for each in (True, False))
    assert found.batch_norm is not None
    assert plain.batch_norm is None
    assert muquant.compress(model).batch_norm is None
    exact = output_sqnr(found.module, model, read_samples(samples[3::4]))
    assert exact == pytest.approx(max(found.batch_norm.before, found.batch_norm.after))
    torch.testing.assert_close(plain.module[1].running_mean, model[1].running_mean, rtol=0, atol=0)


def test_without_batch_norm_there_is_nothing_to_do() -> None:
    assert muquant.compress(nn.Linear(3, 2), calibration=torch.ones(8, 3)).batch_norm is None


class Spoilt(nn.Module):
    """Adds numbers to the second of two."""

    def __init__(self, *added: float) -> None:
        super().__init__()
        self.added = torch.tensor(added)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.added


@pytest.mark.parametrize(
    ("exact", "other", "expected"),
    [
        ((0.0, -math.inf), (0.1, -math.inf), 20.0),
        ((0.0, 0.0), (0.0, math.nan), ALL_LOST),
        ((0.0, 0.0), (0.0, math.inf), ALL_LOST),
        ((0.0, -math.inf), (0.0, 0.0), ALL_LOST),
        ((0.0, math.nan), (0.0, math.nan), ALL_LOST),
        ((0.0, -math.inf), (0.0, -math.inf), math.inf),
    ],
    ids=str,
)
def test_outputs_that_are_no_numbers(
    exact: tuple[float, float], other: tuple[float, float], expected: float
) -> None:
    x = torch.tensor([[1.0, 0.0]])
    found = output_sqnr(Spoilt(*other), Spoilt(*exact), read_samples(x))
    assert found == pytest.approx(expected, abs=1e-4)
