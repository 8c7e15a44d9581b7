"""The numbers of the suites."""

import pytest

from muquant.base.errors import InputError
from muquant.robustness import SETTINGS, settings_for


def test_settings_of_the_paper() -> None:
    mnist, cifar = SETTINGS["mnist"], SETTINGS["cifar10"]
    assert (mnist.weak, mnist.medium, mnist.epsilon) == (0.1, 0.2, 0.3)
    assert (mnist.pgd_steps, mnist.pgd_step_size, mnist.l2_bound, mnist.sigma) == (40, 0.01, 2.0, 0.3)
    assert (255 * cifar.weak, 255 * cifar.medium, 255 * cifar.epsilon) == pytest.approx((2, 4, 8))
    assert (cifar.pgd_steps, cifar.l2_bound) == (20, 0.5)
    assert 255 * cifar.pgd_step_size == pytest.approx(2)


def test_another_epsilon_scales_the_weaker_ones() -> None:
    settings = settings_for("mnist", "0.15")
    assert (settings.weak, settings.medium, settings.epsilon) == pytest.approx((0.05, 0.1, 0.15))
    assert settings_for("folder:x", "16/255").epsilon == pytest.approx(16 / 255)
    assert settings_for("mnist", norm="l2").epsilon == 2.0
    assert settings_for("mnist", norm="l1").epsilon == 10.0
    assert settings_for("folder:x", norm="l1").epsilon == 12.0  # Croce and Hein's for CIFAR-10


@pytest.mark.parametrize("epsilon", ["-0.1", "1.5", "nan", "x", "1/0"])
def test_an_epsilon_outside_the_range_is_refused(epsilon: str) -> None:
    with pytest.raises(InputError, match="epsilon"):
        settings_for("mnist", epsilon)
