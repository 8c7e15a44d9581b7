"""What a layer's output loses where its inputs drift, beside the outputs themselves."""

import numpy as np
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from muquant import MuLawSpec
from muquant.format.channels import ROWS
from muquant.quantization.moments import InputMoments, Moments
from muquant.quantization.output_error import OutputError, mean_error, moved
from muquant.quantization.quantize import quantize
from muquant.quantization.sums import MomentSums, VectorSums


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(seed: int, blocks: int = 1, count: int = 300, drift: float = 0.3) -> tuple[Tensor, Tensor]:
    """What a compressed and the float network show, [blocks, count, 8]: the one is a part of the other, and
    some noise."""
    x = numbers(seed, blocks, count, 8) @ numbers(99, blocks, 8, 8) + 0.5
    exact = x @ (torch.eye(8) + drift * numbers(98, blocks, 8, 8)) + 0.1 + drift * numbers(seed + 1, *x.shape)
    return x, exact


def moments(x: Tensor, exact: Tensor | None) -> Moments:
    sums = MomentSums("layer", (1, 8))
    for part in (slice(0, 100), slice(100, None)):
        sums.add(VectorSums.of(x[:, part], None if exact is None else exact[:, part]))
    return sums.moments()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), blocks=st.integers(1, 3), power=st.sampled_from([-60, 0, 40]))
def test_the_error_is_that_of_the_output(seed: int, blocks: int, power: int) -> None:
    x, exact = (each * 2.0**power for each in inputs(seed, blocks))
    weight, other = numbers(seed + 2, blocks, 5, 8), numbers(seed + 3, blocks, 5, 8)
    known = moments(x, exact)
    error, shift = weight - other, numbers(seed + 4, blocks, 5)
    lost = (exact @ weight.mT - x @ other.mT) / known.unit
    judge = OutputError(weight, known)
    np.testing.assert_allclose(
        judge.signal, (exact / known.unit @ weight.mT).square().mean(1).sum(), rtol=1e-3
    )
    np.testing.assert_allclose(judge.of(error), lost.square().mean(1).sum(), rtol=1e-3)
    shifted = (lost - shift[:, None]).square().mean(1).sum()
    np.testing.assert_allclose(judge.of(error, shift), shifted, rtol=1e-3)
    torch.testing.assert_close(mean_error(weight, error, known), lost.mean(1), rtol=1e-3, atol=1e-3)


def test_the_moved_weight_is_the_least_squares_fit_to_the_float_outputs() -> None:
    x, exact = inputs(0, count=20_000)
    weight, known = numbers(2, 1, 5, 8), moments(x, exact)
    found = moved(weight, known, None, OutputError(weight, known))[0].numpy()
    expected, *_ = np.linalg.lstsq(x[0].numpy(), (exact @ weight.mT)[0].numpy(), rcond=None)
    np.testing.assert_allclose(found, expected.T, atol=0.1)  # the least shrinkage
    shifted = moved(weight, known.about(known.mean), known, OutputError(weight, known))[0].numpy()
    wider = np.concatenate((x[0].numpy(), np.ones((20_000, 1), np.float32)), 1)
    expected, *_ = np.linalg.lstsq(wider, (exact @ weight.mT)[0].numpy(), rcond=None)
    np.testing.assert_allclose(shifted, expected.T[:, :8], atol=0.1)  # the least shrinkage


def test_a_way_that_backfires_on_held_out_samples_is_not_gone() -> None:
    weight, known = numbers(2, 1, 5, 8), moments(*inputs(0))
    other_way = moments(inputs(5)[0], 2 * inputs(5)[0] - inputs(5)[1])
    torch.testing.assert_close(moved(weight, known, None, OutputError(weight, other_way)), weight)
    still = moments(inputs(0)[0], None)
    assert moved(weight, still, None, OutputError(weight, still)) is weight


def test_quantization_aims_at_the_float_outputs() -> None:
    """With few bits and much drift, codes for the weight itself leave more than codes for the moved one."""
    weight = numbers(2, 16, 8)
    (x, exact), (other, other_exact) = inputs(0, count=2000), inputs(7, count=2000)
    blind = quantize(
        weight,
        MuLawSpec(4),
        ROWS,
        "search",
        "reconstructed",
        InputMoments(moments(x, None), moments(other, None)),
    )
    found = quantize(
        weight,
        MuLawSpec(4),
        ROWS,
        "search",
        "reconstructed",
        InputMoments(moments(x, exact), moments(other, other_exact)),
        biased=True,
    )
    wanted = other_exact[0] @ weight.T
    assert found.shift is not None
    lost = (other[0] @ found.tensor.dequantize().T + found.shift - wanted).square().sum()
    assert lost < 0.6 * (other[0] @ blind.tensor.dequantize().T - wanted).square().sum()
    assert found.output is not None
    ratio = 10 * np.log10(float(wanted.square().sum() / lost))
    np.testing.assert_allclose(found.output.taken, ratio, rtol=1e-3)
