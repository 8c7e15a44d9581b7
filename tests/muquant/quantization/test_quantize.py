"""Which of several outcomes a weight keeps, and what is said of it."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import muquant
from muquant import InputError, MuLawSpec
from muquant.compression.calibration import collect_moments, read_samples, samples, samples_of, split
from muquant.compression.layers import quantizable_weights
from muquant.format.channels import ROWS
from muquant.quantization.moments import InputMoments, Moments
from muquant.quantization.quantize import quantize
from muquant.quantization.sums import MomentSums, VectorSums


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moments(x: Tensor) -> Moments:
    sums = MomentSums("layer", (8, x.shape[1]))
    sums.add(VectorSums.of(x[None]))
    return sums.moments()


def related(seed: int) -> Tensor:
    return numbers(seed, 400, 12) @ numbers(99, 12, 12) + 0.5


WEIGHT = numbers(0, 8, 12)
ALIKE = InputMoments(moments(related(1)), moments(related(2)))


def sqnr(x: Tensor, quantized: Tensor) -> float:
    """Oracle: of the layer's output itself."""
    exact, found = ((x.double() @ weight.double().T).numpy() for weight in (WEIGHT, quantized))
    return float(10 * np.log10(np.square(exact).sum() / np.square(found - exact).sum()))


@pytest.mark.parametrize("rounding", ["nearest", "compensated", "reconstructed"])
def test_the_output_s_quality_is_that_of_the_output(rounding: str) -> None:
    found = quantize(WEIGHT, MuLawSpec(), ROWS, "search", rounding, ALIKE)
    plain = quantize(WEIGHT, MuLawSpec(), ROWS, "search", "nearest")
    assert found.rounding == rounding
    assert found.output is not None
    np.testing.assert_allclose(found.output.taken, sqnr(related(2), found.tensor.dequantize()), rtol=1e-4)
    np.testing.assert_allclose(found.output.nearest, sqnr(related(2), plain.tensor.dequantize()), rtol=1e-4)
    assert (found.output.taken > found.output.nearest + 0.5) == (rounding != "nearest")


def test_a_method_that_backfires_on_held_out_samples_is_not_taken() -> None:
    other = InputMoments(ALIKE.fit, moments(numbers(5, 400, 12)))  # inputs that do not hang together
    found = quantize(WEIGHT, MuLawSpec(), ROWS, "search", "reconstructed", other)
    assert found.rounding == "nearest"
    assert found.output is not None
    assert found.output.taken == found.output.nearest
    plain = quantize(WEIGHT, MuLawSpec(), ROWS, "search", "nearest")
    torch.testing.assert_close(found.tensor.codes, plain.tensor.codes, rtol=0, atol=0)


@pytest.mark.parametrize("rounding", ["nearest", "compensated", "reconstructed"])
def test_a_bias_makes_up_for_the_mean_of_the_error(rounding: str) -> None:
    samples = InputMoments(moments(related(1) + 5), moments(related(2) + 5))
    alone, biased = (
        quantize(WEIGHT, MuLawSpec(), ROWS, "search", rounding, samples, biased=each)
        for each in (False, True)
    )
    assert alone.shift is None
    assert biased.shift is not None
    assert alone.output is not None
    assert biased.output is not None
    exact, found = (
        (related(2) + 5).double() @ weight.double().T for weight in (WEIGHT, biased.tensor.dequantize())
    )
    lost = (found + biased.shift - exact).square().sum()
    ratio = 10 * np.log10(float(exact.square().sum() / lost))
    np.testing.assert_allclose(biased.output.taken, ratio, rtol=1e-4)
    assert biased.output.taken > alone.output.taken
    assert biased.output.nearest == alone.output.nearest
    mean = (related(1) + 5).mean(0)
    wanted = (WEIGHT - biased.tensor.dequantize()) @ mean
    torch.testing.assert_close(biased.shift, wanted, rtol=1e-3, atol=1e-4)


def test_a_shift_that_backfires_on_held_out_samples_is_not_made() -> None:
    other = InputMoments(moments(related(1) + 5), moments(related(2) - 5))  # inputs whose mean is another
    assert quantize(WEIGHT, MuLawSpec(), ROWS, "search", "nearest", other, biased=True).shift is None


def test_a_mapped_weight_shifts_nothing() -> None:
    spec = MuLawSpec(3, 7.0, domain="mapped")
    assert quantize(WEIGHT, spec, ROWS, "search", "nearest", ALIKE, biased=True).shift is None


def test_only_a_layer_s_own_bias_is_corrected() -> None:
    torch.manual_seed(0)
    x = numbers(0, 40, 6) + 2
    tied = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6, bias=False))
    tied[1].bias = tied[0].bias
    found = muquant.compress(tied, calibration=x)
    assert [layer.bias_corrected for layer in found.report] == [False, False, True, False]
    assert found.module[0].bias is found.module[1].bias  # type: ignore[index]
    torch.testing.assert_close(found.module[0].bias, tied[0].bias, rtol=0, atol=0)  # type: ignore[index]
    plain = muquant.compress(tied, calibration=x, corrections=False)
    assert not any(layer.bias_corrected for layer in plain.report)


def test_a_mu_that_was_named_stays() -> None:
    assert quantize(WEIGHT, MuLawSpec(3, 7.0), ROWS, "search", "reconstructed", ALIKE).tensor.spec.mu == 7.0


def test_nothing_lost_is_infinitely_good() -> None:
    found = quantize(torch.zeros(8, 12), MuLawSpec(), ROWS, "search", "reconstructed", ALIKE)
    assert found.output is not None
    assert found.output.nearest == found.output.taken == math.inf


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(30, 8),
        nn.Flatten(),
        nn.Linear(40, 24),
        nn.ReLU(),
        nn.Linear(24, 24),
        nn.ReLU(),
        nn.Linear(24, 5),
    )


def tokens(seed: int, count: int) -> Tensor:
    return torch.randint(30, (count, 5), generator=torch.Generator().manual_seed(seed))


def test_a_calibrated_model_is_nearer_to_the_float_one() -> None:
    model, calibration, test = network(), tokens(0, 600), tokens(1, 600)
    plain, found = muquant.compress(model), muquant.compress(model, calibration=calibration)
    with torch.no_grad():
        exact, *others = (each(test) for each in (model, plain.module, found.module))
    lost, left = (float((other - exact).square().sum()) for other in others)
    assert left < 0.8 * lost
    table, *layers = found.report
    assert (table.rounding, table.output_sqnr, table.nearest_output_sqnr) == ("balanced", None, None)
    for layer in layers:
        assert layer.rounding != "nearest"
        assert layer.output_sqnr is not None
        assert layer.nearest_output_sqnr is not None
        assert layer.output_sqnr > layer.nearest_output_sqnr
    for name, tensor in found.tensors.items():
        torch.testing.assert_close(found.module.get_parameter(name).data, tensor.dequantize(), rtol=0, atol=0)


def test_inputs_by_name_calibrate_as_well() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, *, left: Tensor, right: Tensor) -> Tensor:
            return self.layer(left + right)  # type: ignore[no-any-return]

    calibration = {"left": numbers(0, 40, 6), "right": numbers(1, 40, 6)}
    (layer,) = muquant.compress(Named(), calibration=calibration).report
    assert layer.output_sqnr is not None


def test_a_quarter_of_the_samples_is_held_out() -> None:
    model, x = nn.Linear(6, 4), numbers(0, 10, 6)
    ((_, known, why),) = samples_of(model, quantizable_weights(model), split(x))
    assert known is not None
    assert why == ""
    torch.testing.assert_close(known.held_out.second[0], x[[3, 7]].T @ x[[3, 7]] / 2)
    rest = x[[0, 1, 2, 4, 5, 6, 8, 9]]
    torch.testing.assert_close(known.fit.second[0], rest.T @ rest / 8)


def test_moments_that_do_not_fit_in_memory_are_collected_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MEMORY", 8 * 24**2)
    model = network()
    weights = quantizable_weights(model)
    whole = collect_moments(model, weights, read_samples(tokens(0, 12)[[0, 1, 2, 4, 5, 6, 8, 9, 10]]))
    found = {weight: known for weight, known, _ in samples_of(model, weights, split(tokens(0, 12)))}
    assert list(found) == weights
    for weight, expected in whole.items():
        own = found[weight]
        if isinstance(expected, str):
            assert own is None
            continue
        assert own is not None
        torch.testing.assert_close(own.fit.second, expected.second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounding": "compensated"}, "rounding 'compensated' .* needs samples; give a calibration"),
        ({"calibration": tokens(0, 3)}, "at least 4 samples, found 3"),
        ({"calibration": (tokens(0, 8), tokens(0, 9))}, "one N, at least 1"),
        ({"calibration": numbers(0, 8, 5)}, "Sequential does not run on inputs"),
        ({"calibration": tokens(0, 8), "rounding": "up"}, "rounding 'up' is unknown"),
    ],
)
def test_bad_input(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        muquant.compress(network(), **options)  # type: ignore[arg-type]


def test_what_was_trained_at_few_bits_takes_no_calibration() -> None:
    model = muquant.prepare_qat(network())
    with pytest.raises(InputError, match="call compress\\(model\\) with no option"):
        muquant.compress(model, calibration=tokens(0, 8))
