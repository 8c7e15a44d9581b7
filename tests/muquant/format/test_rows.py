import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from muquant import MuLawSpec
from muquant.format.rows import from_rows, spread, to_matrix, to_rows

from ..conftest import GRANULARITIES, reference_step


@settings(deadline=None)  # the first call starts torch up
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.sampled_from(GRANULARITIES),
    st.integers(0, 3),
    st.integers(0, 2**32 - 1),
)
def test_rows_come_back_and_share_the_steps_that_spread_gives_them(
    sizes: list[int], granularity: str, place: int, seed: int
) -> None:
    shape, axis = tuple(sizes), place % len(sizes)
    spec = MuLawSpec(mu=1.0, granularity=granularity)
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=random, dtype=torch.float64)
    rows = to_rows(weight, spec, axis)
    torch.testing.assert_close(from_rows(rows, spec, shape, axis), weight, rtol=0, atol=0)
    step_shape = spec.steps.step_shape(shape[axis], weight.numel() // shape[axis])
    assert len(rows) == (step_shape[0] * step_shape[1] if granularity != "tensor" else shape[axis])
    step = torch.randn(step_shape, generator=random, dtype=torch.float64)
    wide = spread(step, spec, shape, axis).expand(shape)
    expected = reference_step(step.numpy().astype(np.float32), granularity, shape, axis)
    np.testing.assert_array_equal(wide.numpy().astype(np.float32), expected)
    number = np.arange(step.numel()).reshape(step_shape)
    owner = reference_step(number, granularity, shape, axis).astype(int)  # which step each weight has
    summed = np.bincount(owner.ravel(), weight.numpy().ravel(), minlength=step.numel())
    own = rows.sum() if granularity == "tensor" else rows.sum(1)  # a row holds the weights of one step
    np.testing.assert_allclose(own.reshape(-1).numpy(), summed, atol=1e-12)
    np.testing.assert_allclose((wide * weight).sum().item(), step.numpy().ravel() @ summed, atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_matrix_has_the_channel_axis_first(axis: int) -> None:
    weight = np.arange(24).reshape(2, 3, 4)
    expected = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    np.testing.assert_array_equal(to_matrix(torch.from_numpy(weight), axis).numpy(), expected)
