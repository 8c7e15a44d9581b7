import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from muquant import MuLawSpec
from muquant.format.channels import Channels
from muquant.format.rows import from_rows, spread, to_matrix, to_rows

from ..conftest import GRANULARITIES, reference_step


@st.composite
def layouts(draw: st.DrawFn) -> tuple[tuple[int, ...], Channels]:
    """A shape, and channels that a weight of it can have."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    groups = draw(st.sampled_from([1, *(part for part in range(2, shape[0] + 1) if shape[0] % part == 0)]))
    places = st.lists(st.integers(int(groups > 1), len(shape) - 1), min_size=int(groups == 1), unique=True)
    return shape, Channels(tuple(sorted(draw(places))) if len(shape) > 1 or groups == 1 else (), groups)


@settings(deadline=None)  # the first call starts torch up
@given(layouts(), st.sampled_from(GRANULARITIES), st.integers(0, 2**32 - 1))
def test_rows_come_back_and_share_the_steps_that_spread_gives_them(
    layout: tuple[tuple[int, ...], Channels], granularity: str, seed: int
) -> None:
    shape, channels = layout
    spec = MuLawSpec(mu=1.0, granularity=granularity)
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=random, dtype=torch.float64)
    rows = to_rows(weight, spec, channels)
    torch.testing.assert_close(from_rows(rows, spec, shape, channels), weight, rtol=0, atol=0)
    count = channels.groups * math.prod(shape[axis] for axis in channels.axes)
    step_shape = spec.steps.step_shape(count, weight.numel() // count)
    assert len(rows) == (step_shape[0] * step_shape[1] if granularity != "tensor" else count)
    step = torch.randn(step_shape, generator=random, dtype=torch.float64)
    wide = spread(step, spec, shape, channels).expand(shape)
    how = channels.axes, channels.groups
    expected = reference_step(step.numpy().astype(np.float32), granularity, shape, *how[0], groups=how[1])
    np.testing.assert_array_equal(wide.numpy().astype(np.float32), expected)
    number = np.arange(step.numel()).reshape(step_shape)
    owner = reference_step(number, granularity, shape, *how[0], groups=how[1]).astype(int)
    summed = np.bincount(owner.ravel(), weight.numpy().ravel(), minlength=step.numel())
    own = rows.sum() if granularity == "tensor" else rows.sum(1)  # a row holds the weights of one step
    np.testing.assert_allclose(own.reshape(-1).numpy(), summed, atol=1e-12)
    np.testing.assert_allclose((wide * weight).sum().item(), step.numpy().ravel() @ summed, atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_matrix_has_the_channel_axis_first(axis: int) -> None:
    weight = np.arange(24).reshape(2, 3, 4)
    expected = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    np.testing.assert_array_equal(to_matrix(torch.from_numpy(weight), Channels((axis,))).numpy(), expected)


def test_a_matrix_of_groups_has_a_row_for_each_output_of_a_group() -> None:
    weight = np.arange(2 * 3 * 5 * 7).reshape(6, 5, 7)  # 2 groups of 3 inputs and 5 outputs
    expected = [
        weight[3 * group : 3 * group + 3, output].ravel() for group in range(2) for output in range(5)
    ]
    np.testing.assert_array_equal(to_matrix(torch.from_numpy(weight), Channels((1,), 2)).numpy(), expected)
