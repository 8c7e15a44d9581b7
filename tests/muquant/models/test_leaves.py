import numpy as np
import pytest

from muquant.models.leaves import leaves


@pytest.mark.parametrize("shape", [(3, 96, 64), (1, 28, 28), (4, 1, 1), (2, 1, 300)])
def test_pictures_have_mean_zero_and_deviation_one(shape: tuple[int, int, int]) -> None:
    drawn = leaves(np.random.default_rng(0), 3, *shape)
    assert drawn.shape == (3, *shape)
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn.mean((1, 2, 3)), 0, atol=1e-4)
    assert (drawn.std((1, 2, 3)) < 1.001).all()
    np.testing.assert_array_equal(drawn, leaves(np.random.default_rng(0), 3, *shape))
    assert not np.array_equal(drawn[0], drawn[1])


def test_neighbours_are_alike_and_power_falls_with_frequency_as_in_photographs() -> None:
    drawn = leaves(np.random.default_rng(1), 16, 3, 128, 128)
    assert np.mean(drawn[..., 1:] * drawn[..., :-1]) > 0.85
    assert np.mean(drawn[:, 0] * drawn[:, 1]) > 0.6  # channels are mostly alike
    power = (np.abs(np.fft.fft2(drawn.mean(1))) ** 2).mean(0)
    rows = [power[0, low:high].mean() for low, high in ((1, 3), (4, 8), (16, 32))]
    frequencies = [2, 6, 24]
    slope = np.polyfit(np.log(frequencies), np.log(rows), 1)[0]
    assert -3 < slope < -1.2  # photographs: about -2
