from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.ao.quantization import observer as torch_observer

from muquant import AbsMaxObserver, InputError, MuLawSpec, SearchObserver
from muquant.format.channels import ROWS, Channels
from muquant.quantization.observers import OBSERVERS, QuantParams, observer_class
from muquant.quantization.rounding import nearest

Floats = NDArray[np.float64]
MUS = [0.0, *np.geomspace(0.05, 300, 31).tolist()]


def codebook(spec: MuLawSpec, mu: float) -> Any:
    """Unit levels on the grid, from the formula."""
    n = 2**spec.bits - 1 if spec.levels == "mid-rise" else 2 ** (spec.bits - 1) - 1
    y = np.linspace(-1, 1, spec.codes)
    if spec.grid == "int4":  # mid-rise of 3 bits
        level = np.abs(y if mu == 0 else np.expm1(np.abs(y) * np.log1p(mu)) / mu)
        top = 7 if mu == 0 else 15
        return np.sign(y) * (2 * np.floor(top * level / 2) + 1) / top
    top = 127 // n * n if mu == 0 else 127
    level = y if mu == 0 else np.sign(y) * np.expm1(np.abs(y) * np.log1p(mu)) / mu
    return np.round(top * level) / top


def squared_errors(weights: Floats, levels: Floats, scales: Floats) -> Any:
    """The squared error [scales] of rounding to the nearest of scale * levels, by prefix sums."""
    ordered = np.sort(weights)
    sums = np.concatenate(([0], np.cumsum(ordered)))
    values = scales[:, None] * levels
    inner = np.searchsorted(ordered, (values[:, 1:] + values[:, :-1]) / 2)
    cuts = np.pad(inner, ((0, 0), (1, 1)))
    cuts[:, -1] = len(ordered)
    counts, parts = np.diff(cuts), np.diff(sums[cuts])
    return (ordered**2).sum() - 2 * (values * parts).sum(1) + (values**2 * counts).sum(1)


def brute_force(rows: Floats, spec: MuLawSpec, mus: list[float] = MUS) -> tuple[float, float]:
    """The least squared error over a grid of mu and, for each row, of scales; and the mu that has it."""
    ratios = np.linspace(0.03, 1.15, 200)
    errors = [
        sum(squared_errors(row, codebook(spec, mu), np.abs(row).max() * ratios).min() for row in rows)
        for mu in mus
    ]
    return min(errors), mus[int(np.argmin(errors))]


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "gaussian": lambda random, size: random.normal(size=size),
    "laplace": lambda random, size: random.laplace(size=size),
    "uniform": lambda random, size: random.uniform(-1, 1, size),
    "student": lambda random, size: random.standard_t(3, size),
}


def sample(name: str, *size: int) -> Tensor:
    values = DISTRIBUTIONS[name](np.random.default_rng(7), size)  # type: ignore[arg-type]
    return torch.from_numpy(values * 0.05).float()


def search_error(weight: Tensor, spec: MuLawSpec, axis: int = 0) -> float:
    observer = SearchObserver(spec, axis)
    observer(weight)
    scale, mu = observer.calculate_qparams()
    decoded = nearest(weight, scale, spec.with_mu(float(mu)), Channels.of(axis)).dequantize()
    return float((decoded.double() - weight.double()).square().sum())


FORMATS = [
    (3, "mid-rise", "auto"),
    (3, "mid-tread", "auto"),
    (2, "mid-rise", "auto"),
    (2, "mid-tread", "auto"),
    (4, "mid-rise", "auto"),
    (6, "mid-rise", "auto"),
    (3, "mid-rise", "int4"),
]


@pytest.mark.parametrize(  # every pair: what is searched knows nothing of how many rows share it
    ("name", "bits", "levels", "grid", "granularity"),
    [
        (name, *form, ("tensor", "channel", "group:50")[(row + column) % 3])
        for row, name in enumerate(DISTRIBUTIONS)
        for column, form in enumerate(FORMATS)
    ],
)
def test_the_search_is_within_one_percent_of_brute_force(
    name: str, bits: int, levels: Any, grid: Any, granularity: str
) -> None:
    spec = MuLawSpec(bits, levels=levels, granularity=granularity, grid=grid)
    weight = sample(name, 6, 1000)
    rows = {"tensor": (1, -1), "channel": (6, -1), "group:50": (-1, 50)}[granularity]
    if granularity == "group:50":
        weight, mus = weight[:, :100].contiguous(), MUS[::3]
    else:
        mus = MUS
    best, _ = brute_force(weight.double().numpy().reshape(rows), spec, mus)
    assert search_error(weight, spec) <= 1.01 * best


@pytest.mark.parametrize("name", ["gaussian", "laplace"])
def test_absmax_takes_the_largest_magnitude_and_the_best_mu_for_it(name: str) -> None:
    weight = sample(name, 4, 500)
    observer = AbsMaxObserver(MuLawSpec())
    observer(weight)
    scale, mu = observer.calculate_qparams()
    np.testing.assert_array_equal(scale.numpy(), weight.abs().amax(1, keepdim=True).numpy())
    rows = weight.double().numpy()

    def error(candidate: float) -> float:
        levels = codebook(observer.spec, candidate)
        return float(sum(squared_errors(row, levels, np.abs(row).max(keepdims=True))[0] for row in rows))

    assert error(float(mu)) <= 1.01 * min(error(candidate) for candidate in MUS)


@pytest.mark.parametrize("observer", OBSERVERS.values())
@pytest.mark.parametrize("mu", [0.0, 1.0, 255.0])
def test_a_number_for_mu_is_kept(observer: Any, mu: float) -> None:
    watch = observer(MuLawSpec(mu=mu))
    watch(sample("gaussian", 3, 40))
    assert watch.calculate_qparams().mu.item() == mu


def test_with_mu_fixed_the_scale_is_the_best_one() -> None:
    spec = MuLawSpec(mu=16.0)
    weight = sample("gaussian", 5, 700)
    best, _ = brute_force(weight.double().numpy(), spec, [16.0])
    assert search_error(weight, spec) <= 1.003 * best


@pytest.mark.parametrize("observer", OBSERVERS.values())
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group:3"])
def test_the_mapped_domain_takes_the_largest_magnitude(observer: Any, granularity: str) -> None:
    weight = sample("gaussian", 2, 6)
    watch = observer(MuLawSpec(mu=255.0, domain="mapped", granularity=granularity))
    watch(weight)
    rows = {"tensor": (1, 12), "channel": (2, 6), "group:3": (4, 3)}[granularity]
    expected = weight.abs().reshape(rows).amax(1).reshape(watch.scale.shape)
    torch.testing.assert_close(watch.scale, expected, rtol=0, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    weight = torch.ones(2, 3)
    weight[1, 2] = value
    with pytest.raises(InputError, match=r"shape \(2, 3\) holds 1 values that are NaN or infinite"):
        SearchObserver()(weight)


@pytest.mark.parametrize("observer", OBSERVERS.values())
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group:4"])
def test_zero_rows_have_scale_zero(observer: Any, granularity: str) -> None:
    weight = torch.zeros(3, 10)
    weight[1] = torch.linspace(-1, 1, 10)
    watch = observer(MuLawSpec(granularity=granularity))
    watch(weight)
    if granularity != "tensor":
        assert (watch.scale[[0, 2]] == 0).all()
    assert (watch.scale[min(1, len(watch.scale) - 1)] > 0).all()
    for zeros in (torch.zeros(3, 10), -torch.zeros(3, 10)):
        watch(zeros)
        assert (watch.scale == 0).all()
        assert not watch.scale.signbit().any()  # a scale of -0 would decode to -0


def test_the_zeros_behind_a_short_last_group_do_not_count() -> None:
    weight = sample("laplace", 7, 70)
    spec = MuLawSpec(granularity="group:64", mu=1.0)
    observer = SearchObserver(spec)
    observer(weight)
    alone = SearchObserver(MuLawSpec(mu=1.0))
    alone(weight[:, 64:].contiguous())
    torch.testing.assert_close(observer.scale[:, 1:], alone.scale)


def test_a_group_longer_than_the_inputs_is_the_channel() -> None:
    weight = sample("gaussian", 4, 30)
    groups, channel = SearchObserver(MuLawSpec(granularity=f"group:{2**31 - 1}")), SearchObserver(MuLawSpec())
    groups(weight)
    channel(weight)
    torch.testing.assert_close(groups.calculate_qparams(), channel.calculate_qparams(), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0,), (0, 0)])
@pytest.mark.parametrize("observer", OBSERVERS.values())
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group:4"])
def test_an_empty_weight_is_observed_and_coded(
    observer: Any, granularity: str, shape: tuple[int, ...]
) -> None:
    spec = MuLawSpec(granularity=granularity)
    watch = observer(spec)
    watch(torch.empty(shape))
    scale, mu = watch.calculate_qparams()
    decoded = nearest(torch.empty(shape), scale, spec.with_mu(float(mu)), ROWS).dequantize()
    assert tuple(decoded.shape) == shape


@pytest.mark.parametrize("axis", [0, 1])
def test_the_channel_axis_says_what_a_row_is(axis: int) -> None:
    weight = sample("gaussian", 4, 6) * torch.arange(1, 5)[:, None]
    along, first = SearchObserver(MuLawSpec(), axis), SearchObserver(MuLawSpec(), 0)
    along(weight)
    first(weight.movedim(axis, 0).contiguous())
    assert along.scale.shape == (weight.shape[axis], 1)
    torch.testing.assert_close(along.calculate_qparams(), first.calculate_qparams(), rtol=0, atol=0)


@pytest.mark.parametrize("factor", [1e-42, 1e-30, 1e30])
def test_the_unit_of_the_weights_does_not_matter(factor: float) -> None:
    weight = sample("gaussian", 3, 400)
    plain, scaled = SearchObserver(MuLawSpec(mu=1.0)), SearchObserver(MuLawSpec(mu=1.0))
    plain(weight)
    scaled(weight * factor)
    torch.testing.assert_close(scaled.scale, plain.scale * factor, rtol=1e-3, atol=2e-45)


def test_an_observer_is_one_of_torch_ao() -> None:
    observer = SearchObserver()
    assert isinstance(observer, torch_observer.ObserverBase)
    weight = sample("gaussian", 2, 9)
    assert observer(weight) is weight
    assert isinstance(observer.calculate_qparams(), QuantParams)
    made = SearchObserver.with_args(spec=MuLawSpec(bits=5), channel_axis=1)()
    assert (made.spec.bits, made.channels) == (5, Channels((1,)))


def test_only_the_last_weight_counts() -> None:
    observer, fresh = SearchObserver(), SearchObserver()
    observer(sample("student", 8, 9))
    observer(sample("gaussian", 2, 50))
    fresh(sample("gaussian", 2, 50))
    torch.testing.assert_close(observer.calculate_qparams(), fresh.calculate_qparams(), rtol=0, atol=0)


def test_an_unknown_observer_is_refused() -> None:
    with pytest.raises(InputError, match="expected one of search, absmax"):
        observer_class("minmax")
