from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from muquant import InputError, MuLawSpec, QuantizedTensor
from muquant.format.channels import Channels
from muquant.format.law import grid_levels
from muquant.format.packing import unpack
from muquant.format.tensor import step_of

from ..conftest import FORMATS, GRANULARITIES, reference_step

SHAPES = [(1,), (7,), (1, 1), (5, 13), (3, 4, 5), (3, 2, 3, 3), (2, 3, 1, 2, 5)]


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize(("shape", "axis"), [(s, a) for s in SHAPES for a in (0, 1) if a < len(s)], ids=str)
def test_dequantize_is_float32_k_times_step(shape: tuple[int, ...], axis: int, granularity: str) -> None:
    random = np.random.default_rng(0)
    for bits, levels, mu, grid in FORMATS:
        spec = MuLawSpec(bits, mu, granularity=granularity, levels=levels, grid=grid)  # type: ignore[arg-type]
        codes = random.integers(0, 2**bits, shape, np.uint8)
        inputs = codes.size // shape[axis]
        step = random.exponential(size=spec.steps.step_shape(shape[axis], inputs)).astype(np.float32)
        quantized = QuantizedTensor(spec, torch.from_numpy(codes), torch.from_numpy(step), Channels((axis,)))
        k = grid_levels(spec).numpy()[codes]
        expected = k.astype(np.float32) * reference_step(step, granularity, shape, axis)
        np.testing.assert_array_equal(quantized.dequantize().numpy(), expected)
        np.testing.assert_array_equal(quantized.levels().numpy(), k)
        np.testing.assert_array_equal(unpack(quantized.packed(), bits, codes.size), codes.reshape(-1))


@settings(deadline=None)
@given(
    scale=st.floats(2.0**-100, 2.0**100, width=32),
    form=st.sampled_from(
        [
            (3, 5.0, "auto", 127),
            (3, 0.0, "auto", 126),
            (8, 5.0, "auto", 32767),
            (3, 5.0, "int4", 15),
            (3, 0.0, "int4", 7),
        ]
    ),
)
def test_the_step_is_the_float_nearest_to_scale_by_grid_max(
    scale: float, form: tuple[int, float, Any, int]
) -> None:
    bits, mu, grid, grid_max = form
    step = step_of(torch.tensor([[scale]]), MuLawSpec(bits, mu, grid=grid)).numpy()[0, 0]
    exact = Fraction(scale) / grid_max
    error = abs(Fraction(float(step)) - exact)
    for other in (np.nextafter(step, np.float32(0)), np.nextafter(step, np.float32(np.inf))):
        assert error <= abs(Fraction(float(other)) - exact)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": torch.full((2, 3), 8, dtype=torch.uint8)}, "code 8 does not fit in 3 bits"),
        ({"codes": torch.zeros(2, 3, dtype=torch.int64)}, "expected uint8"),
        ({"codes": torch.zeros((), dtype=torch.uint8)}, "channel axes"),
        ({"step": torch.ones(2, 1, dtype=torch.float64)}, "expected uint8 and float32"),
        ({"step": torch.ones(1, 1)}, r"expected \(2, 1\)"),
        ({"step": torch.ones(2)}, r"expected \(2, 1\)"),
        ({"step": torch.tensor([[1.0], [-1.0]])}, "negative"),
        ({"step": torch.tensor([[1.0], [float("nan")]])}, "not finite"),
        ({"step": torch.tensor([[1.0], [float("inf")]])}, "not finite"),
        ({"channels": Channels((2,))}, r"channel axes \[2\]"),
        ({"channels": Channels((1,), 3)}, "3 groups"),
    ],
    ids=str,
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    parts = {
        "spec": MuLawSpec(mu=1.0),
        "codes": torch.zeros(2, 3, dtype=torch.uint8),
        "step": torch.ones(2, 1),
    }
    QuantizedTensor(**parts)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        QuantizedTensor(**{**parts, **change})


@pytest.mark.parametrize(("bits", "count", "size"), [(3, 15, 6 + 12), (3, 24, 9 + 12), (5, 3, 5 + 12)])
def test_bytes_are_those_of_packed_codes_and_steps(bits: int, count: int, size: int) -> None:
    codes = torch.zeros(3, count // 3, dtype=torch.uint8)
    quantized = QuantizedTensor(MuLawSpec(bits, 1.0), codes, torch.ones(3, 1))
    assert quantized.nbytes == size == quantized.packed().nbytes + 4 * quantized.step.numel()
