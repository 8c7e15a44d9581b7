"""Rounding by a layer's output: against its definition carried out plainly, and what must never happen."""

import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings, strategies as st
from numpy.typing import NDArray
from torch import Tensor

from muquant import InputError, MuLawSpec
from muquant.format.channels import Channels
from muquant.format.law import grid_levels
from muquant.format.steps import FEWEST, coded_steps
from muquant.format.tensor import QuantizedTensor
from muquant.quantization.moments import Moments
from muquant.quantization.observers import SearchObserver
from muquant.quantization.rounding import compensated, nearest, reconstructed, refinements
from muquant.quantization.rounding.problem import RoundingProblem, refit
from muquant.quantization.sums import MomentSums, VectorSums

Array = NDArray[Any]
SPECS = (
    MuLawSpec(2, 3.0),
    MuLawSpec(3),
    MuLawSpec(3, 5.0, granularity="tensor"),
    MuLawSpec(3, 5.0, granularity="group:4"),
    MuLawSpec(3, 255.0, domain="mapped"),
    MuLawSpec(4, 0.0, levels="mid-tread"),
    MuLawSpec(3, 5.0, grid="int4"),
    MuLawSpec(3, granularity="group:4", levels="mid-tread", grid="int4"),
)


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layer(seed: int, inputs: int, blocks: int = 1, samples: int = 40) -> Moments:
    """Moments of inputs that hang together, as those of real layers do."""
    x = numbers(seed, blocks, samples, inputs) @ numbers(seed + 1, blocks, inputs, inputs) + 0.5
    sums = MomentSums("layer", (1, inputs))
    sums.add(VectorSums.of(x))
    return sums.moments()


def start(weight: Tensor, spec: MuLawSpec, channel_axis: int = 0) -> QuantizedTensor:
    observer = SearchObserver(spec, channel_axis)
    observer(weight)
    scale, mu = observer.calculate_qparams()
    return nearest(weight, scale, spec.with_mu(float(mu)), Channels((channel_axis,)))


def codebook(quantized: QuantizedTensor) -> Array:
    return np.unique(grid_levels(quantized.spec)[: quantized.spec.codes].numpy().astype(np.float64))


def by_definition(weight: Array, second: Array, levels: Array, step: Array) -> Array:
    """Optimal brain compression: fix the weight whose turn it is, and move those still free to where, given
    all that is fixed, the error is least. One row, one weight, one least-squares problem at a time.
    """
    order = np.argsort(-np.diagonal(second), kind="stable")
    result = np.empty_like(weight)
    for r, row in enumerate(weight):
        fixed: list[int] = []
        for place in order:
            free = [j for j in order if j not in fixed]
            wanted = row.copy()
            if fixed:
                lost = result[r, fixed] - row[fixed]
                wanted[free] -= np.linalg.solve(
                    second[np.ix_(free, free)], second[np.ix_(free, fixed)] @ lost
                )
            result[r, place] = levels[np.abs(levels * step[r] - wanted[place]).argmin()] * step[r]
            fixed.append(int(place))
    return result


@pytest.mark.parametrize("block", [128, 4])  # of 9 columns: all at once, and three blocks
@pytest.mark.parametrize("seed", range(8))
def test_compensation_is_what_its_definition_says(
    seed: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[compensated.__module__], "BLOCK", block)
    weight, moments = numbers(seed, 5, 9), layer(seed, 9)
    begin = start(weight, MuLawSpec(3))
    problem = RoundingProblem.of(weight, begin, moments)
    found = compensated(weight, begin, moments)
    with_old_steps = problem.quantized(problem.levels(found.codes), begin.step).dequantize()
    expected = by_definition(
        weight.double().numpy(),
        moments.shrunk[0].double().numpy(),
        codebook(begin),
        begin.step[:, 0].double().numpy(),
    )
    np.testing.assert_allclose(with_old_steps.numpy(), expected, rtol=1e-6)


@example(spec=SPECS[-1], seed=900_000, blocks=2)  # the first codes that stay are not the last
@settings(deadline=None, max_examples=60)
@given(spec=st.sampled_from(SPECS), seed=st.integers(0, 10**6), blocks=st.sampled_from([1, 2, 6]))
def test_nothing_that_one_code_can_improve_is_left(spec: MuLawSpec, seed: int, blocks: int) -> None:
    weight, moments = numbers(seed, 6, 7), layer(seed, 7, blocks)
    begin = start(weight, spec)
    found = reconstructed(weight, begin, moments)
    problem = RoundingProblem.of(weight, begin, moments)
    assert problem.error(found) <= problem.error(begin) * (1 + 1e-5)
    settled, least = found, problem.error(found)
    for _ in range(100):  # codes that stay may move again when the steps, fitted to them, have
        before, settled = least, reconstructed(weight, settled, moments)
        least = problem.error(settled)
        if least >= before * (1 - 1e-6):
            break
    for row in range(6):
        for column in range(7):
            for code in range(spec.codes):
                codes = settled.codes.clone()
                codes[row, column] = code
                other = QuantizedTensor(settled.spec, codes, settled.step)
                assert problem.error(other) >= least * (1 - 1e-4)


@settings(deadline=None, max_examples=60)
@given(spec=st.sampled_from(SPECS), seed=st.integers(0, 10**6))
def test_fitted_steps_are_positive_and_no_worse(spec: MuLawSpec, seed: int) -> None:
    weight, moments = numbers(seed, 6, 10), layer(seed, 10)
    begin = start(weight, spec)
    problem = RoundingProblem.of(weight, begin, moments)
    levels = problem.levels(begin.codes)
    step, slope = refit(problem, levels, begin.step, problem.slope(levels, begin.step))
    torch.testing.assert_close(slope, problem.slope(levels, step), rtol=1e-3, atol=1e-2)
    assert step.shape == begin.step.shape
    assert bool((step > 0).all())
    assert problem.error(problem.quantized(levels, step)) <= problem.error(begin) * (1 + 1e-5)
    if spec.domain == "mapped":
        torch.testing.assert_close(step, begin.step, rtol=0, atol=0)


@pytest.mark.parametrize("granularity", ["channel", "group:4"])
@pytest.mark.parametrize("seed", range(4))
def test_many_steps_are_fitted_among_those_that_8_bits_hold(granularity: str, seed: int) -> None:
    weight, moments = numbers(seed, FEWEST, 10), layer(seed, 10)
    begin = start(weight, MuLawSpec(3, granularity=granularity))
    problem = RoundingProblem.of(weight, begin, moments)
    levels = problem.levels(begin.codes)
    step, slope = refit(problem, levels, begin.step, problem.slope(levels, begin.step))
    torch.testing.assert_close(slope, problem.slope(levels, step), rtol=1e-3, atol=1e-2)
    assert coded_steps(step.numpy()) is not None
    assert problem.error(problem.quantized(levels, step)) < problem.error(begin)
    found = reconstructed(weight, begin, moments)
    assert coded_steps(found.step.numpy()) is not None
    assert problem.error(found) < problem.error(problem.quantized(levels, step))


def test_a_channel_s_step_is_its_least_squares_fit() -> None:
    weight, moments = numbers(1, 6, 10), layer(1, 10)
    begin = start(weight, MuLawSpec(3))
    problem = RoundingProblem.of(weight, begin, moments)
    own = problem.levels(begin.codes)
    found, _ = refit(problem, own, begin.step, problem.slope(own, begin.step))
    root = np.linalg.cholesky(moments.shrunk[0].double().numpy())
    for row in range(6):
        levels = begin.levels()[row].double().numpy()
        expected, *_ = np.linalg.lstsq(
            (levels @ root)[:, None], weight[row].double().numpy() @ root, rcond=None
        )
        np.testing.assert_allclose(found[row, 0], expected[0], rtol=1e-4)


@pytest.mark.parametrize("method", [compensated, reconstructed])
def test_all_zero_channels_stay_zero(method: Any) -> None:
    weight, moments = numbers(3, 4, 8), layer(3, 8)
    weight[1] = 0
    found = method(weight, start(weight, MuLawSpec(3)), moments)
    assert bool((found.dequantize()[1] == 0).all())
    assert bool((found.dequantize()[0] != 0).all())


@pytest.mark.parametrize("method", [compensated, reconstructed])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_other_channel_axes_and_shapes_are_the_same_problem(method: Any, spec: MuLawSpec) -> None:
    weight, moments = numbers(5, 6, 8), layer(5, 8)
    expected = method(weight, start(weight, spec), moments).dequantize()
    turned = weight.T.contiguous()
    np.testing.assert_array_equal(method(turned, start(turned, spec, 1), moments).dequantize().T, expected)
    image = weight.reshape(6, 2, 2, 2)
    np.testing.assert_array_equal(
        method(image, start(image, spec), moments).dequantize().reshape(6, 8), expected
    )


@pytest.mark.parametrize("method", [compensated, reconstructed])
def test_blocks_are_problems_of_their_own(method: Any) -> None:
    weight, moments = numbers(7, 6, 5), layer(7, 5, blocks=3)
    whole = method(weight, start(weight, MuLawSpec(3, 4.0)), moments).dequantize()
    for block in range(3):
        rows = slice(2 * block, 2 * block + 2)
        part = slice(block, block + 1)
        own = Moments(
            moments.mean[part], moments.second[part], moments.third[part], moments.fourth[part], moments.count
        )
        found = method(weight[rows], start(weight[rows], MuLawSpec(3, 4.0)), own).dequantize()
        torch.testing.assert_close(found, whole[rows])


@pytest.mark.parametrize("method", [compensated, reconstructed])
def test_columns_are_taken_in_blocks_for_speed_alone(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, moments = numbers(11, 6, 40), layer(11, 40, samples=200)
    begin = start(weight, MuLawSpec(3))
    whole = method(weight, begin, moments)
    for block in (1, 7, 39):
        monkeypatch.setattr(sys.modules[method.__module__], "BLOCK", block)
        found = method(weight, begin, moments)
        np.testing.assert_array_equal(found.codes.numpy(), whole.codes.numpy(), err_msg=f"blocks of {block}")
        torch.testing.assert_close(found.step, whole.step)


def test_it_pays() -> None:
    """On inputs that hang together, each method leaves clearly less of the error than the one before."""
    weight, moments = numbers(9, 64, 96), layer(9, 96, samples=4000)
    begin = start(weight, MuLawSpec(3))
    error = RoundingProblem.of(weight, begin, moments).error
    first = compensated(weight, begin, moments)
    assert error(first) < 0.6 * error(begin)
    assert error(reconstructed(weight, first, moments)) < 0.99 * error(first)


def test_an_unknown_rounding_is_refused() -> None:
    with pytest.raises(InputError, match="expected one of nearest"):
        refinements("up")
