"""Steps in 8 bits, against the formulas of export/FORMAT.md, number by number."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from muquant import MuLawSpec, QuantizedTensor
from muquant.format.steps import FEWEST, CodedSteps, coded_steps, steps_size
from muquant.format.stored import read_weight, weight_entry, weight_tensors
from muquant.format.tensor import short_steps, step_of

K = [*range(16), *((16 + code % 16) * 2 ** (code // 16 - 1) for code in range(16, 256))]
"""The k of each code."""
MANY = st.lists(
    st.floats(0, 2.0**40, width=32, allow_subnormal=False), min_size=FEWEST, max_size=FEWEST + 9
).filter(any)


def exactly(step: torch.Tensor) -> list[Fraction]:
    return [Fraction(value) for value in step.double().tolist()]


@given(MANY)
def test_short_steps_are_the_nearest_that_8_bits_hold(values: list[float]) -> None:
    given_steps = torch.tensor(values).reshape(-1, 1)
    if float(given_steps.max()) < 2.0**-100:  # whose unit is hardly a number
        return
    short = short_steps(given_steps)
    coded = coded_steps(short.numpy())
    assert coded is not None
    assert math.frexp(float(coded.unit))[0] == 0.5  # a power of two
    assert coded.codes.shape == (len(values), 1)
    every = float(coded.unit) * np.array(K, np.float64)
    wanted, taken = given_steps.double().numpy(), every[coded.codes]
    np.testing.assert_array_equal(taken, short.double().numpy())
    np.testing.assert_array_equal(taken, coded.decoded())
    np.testing.assert_array_equal(np.abs(wanted - taken), np.abs(wanted - every).min(1, keepdims=True))
    assert torch.equal(short_steps(short), short)


@given(MANY)
def test_a_step_that_8_bits_do_not_hold_keeps_all_float(values: list[float]) -> None:
    short = short_steps(torch.tensor(values)).numpy()
    largest = short.argmax()
    for other in (1.03 * short[largest], short[largest] * 2.0**-30):  # six bits; too far below the largest
        changed = short.copy()
        changed[largest - 1] = other
        assert coded_steps(changed) is None


def test_few_steps_and_steps_of_zeros_stay_float() -> None:
    assert coded_steps(np.ones(FEWEST - 1, np.float32)) is None
    assert coded_steps(np.zeros(FEWEST, np.float32)) is None
    assert coded_steps(np.full(FEWEST, 2.0**-120, np.float32)) is None
    assert steps_size(np.ones(FEWEST - 1, np.float32)) == 4 * (FEWEST - 1)
    assert steps_size(np.ones(FEWEST, np.float32)) == FEWEST + 4
    tiny = torch.full((FEWEST,), 2.0**-130)
    assert torch.equal(short_steps(tiny), tiny)


@pytest.mark.parametrize(
    ("spec", "count", "short"),
    [
        (MuLawSpec(mu=5.0), FEWEST, True),
        (MuLawSpec(mu=5.0), FEWEST - 1, False),
        (MuLawSpec(mu=5.0, step_bits=32), FEWEST, False),
        (MuLawSpec(mu=5.0, domain="mapped"), FEWEST, False),
    ],
    ids=str,
)
def test_who_has_short_steps(spec: MuLawSpec, count: int, short: bool) -> None:
    scale = torch.linspace(1, 2, count).reshape(-1, 1)
    step = step_of(scale, spec)
    assert (coded_steps(step.numpy()) is not None) == short == spec.shortens(count)
    exact = (scale.double() / spec.grid_max).float()
    if short:
        assert float((step / exact - 1).abs().max()) <= 1 / 32
    else:
        assert torch.equal(step, exact)


def test_files_hold_them_in_8_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 8, (FEWEST, 5), generator=generator, dtype=torch.uint8)
    spec = MuLawSpec(mu=5.0, granularity="group:3")
    step = short_steps(torch.rand(FEWEST, 2, generator=generator))
    quantized = QuantizedTensor(spec, codes, step)
    tensors = weight_tensors("w", quantized)
    assert {name: (part.dtype, part.numel()) for name, part in tensors.items()} == {
        "codes.w": (torch.uint8, FEWEST * 5 * 3 // 8),
        "step_codes.w": (torch.uint8, 2 * FEWEST),
        "step_unit.w": (torch.float32, 1),
    }
    assert quantized.nbytes == sum(part.nbytes for part in tensors.values())
    found = read_weight("w", tensors, weight_entry(quantized))
    assert torch.equal(found.dequantize(), quantized.dequantize())
    assert found.spec == spec


def test_decoding_is_exact_for_every_code_and_unit() -> None:
    codes = np.arange(256, dtype=np.uint8).reshape(2, 128)
    for exponent in (-126, -20, 0, 100):
        steps = CodedSteps(codes, np.array(2.0**exponent, np.float32)).decoded()
        assert exactly(torch.from_numpy(steps).reshape(-1)) == [Fraction(2) ** exponent * k for k in K]
