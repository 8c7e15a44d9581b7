"""Other bounds and normalised inputs, against what numpy makes of them; and what cannot be used."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from muquant.attacks import PGD, CallableTarget
from muquant.attacks.inputs import InputSpace, read_images
from muquant.base.errors import InputError

MEAN, STD = np.array([0.5, -2, 30], np.float32), np.array([0.25, 1, 9], np.float32)
LOW, HIGH = np.array([-1, 0, 0], np.float32), np.array([1, 255, 0.5], np.float32)
images = arrays(np.float32, (2, 3, 4), elements=st.floats(0, 1, width=32))


@given(images)
def test_a_model_sees_the_values_between_its_bounds_normalised(x: Any) -> None:
    space = InputSpace((LOW, HIGH), (torch.from_numpy(MEAN), STD))
    inputs = LOW[:, None] + x * (HIGH - LOW)[:, None]
    seen = (inputs - MEAN[:, None]) / STD[:, None]
    np.testing.assert_allclose(space(torch.from_numpy(x)), seen, atol=1e-4)
    np.testing.assert_allclose(space.scaled(torch.from_numpy(x)), inputs, atol=1e-4)
    np.testing.assert_allclose(space.unscaled(torch.from_numpy(inputs)), x, atol=1e-5)


@given(arrays(np.float32, array_shapes(min_dims=2), elements=st.floats(0, 1, width=32)))
def test_images_from_0_to_1_pass_as_they_are(x: Any) -> None:
    tensor, space = torch.from_numpy(x), InputSpace()
    assert space(tensor) is space.scaled(tensor) is space.unscaled(tensor) is tensor


def test_numbers_are_for_all_channels_and_rounding_is_forgiven() -> None:
    space = InputSpace((0, 255), (127.5, [127.5]))
    pixels = torch.tensor([[[0.0, 255.0001], [51, 102]]])
    torch.testing.assert_close(space.unscaled(pixels), torch.tensor([[[0, 1], [0.2, 0.4]]]))
    assert float(space.unscaled(pixels).max()) == 1
    torch.testing.assert_close(space(torch.tensor([[0.0, 0.5, 1]])), torch.tensor([[-1.0, 0, 1]]))
    assert str(space) == "[0, 255]"
    assert "127.5" in repr(space)


@pytest.mark.parametrize(
    ("bounds", "preprocessing", "words"),
    [
        ((1, 0), None, r"bounds: expected low below high, found \(1, 0\)"),
        ((0, [1, 0]), None, "bounds: expected low below high"),
        ((0, float("nan")), None, r"bounds: expected \(low, high\), finite numbers"),
        (((0, 0), (1, 1, 1)), None, r"bounds: expected \(low, high\), finite numbers or as many as"),
        ("01", None, "bounds: expected"),
        ((0, 1, 2), None, "bounds: expected"),
        (5, None, "bounds: expected"),
        ((0, 1), (0, 0), r"preprocessing: expected deviations above 0, found \[0.0\]"),
        ((0, 1), (0.5,), r"preprocessing: expected \(mean, std\)"),
        ((0, 1), ([], []), r"preprocessing: expected \(mean, std\)"),
    ],
)
def test_what_is_no_space_is_refused(bounds: Any, preprocessing: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        CallableTarget(lambda x: x, bounds=bounds, preprocessing=preprocessing)
    assert "\n" not in str(caught.value)


def test_images_of_other_channels_or_bounds_are_refused() -> None:
    target = CallableTarget(lambda x: x.sum((2, 3)), bounds=(LOW, HIGH))
    attack, labels = PGD(epsilon=0.1), np.zeros(2, np.int32)
    with pytest.raises(InputError, match=r"inputs: expected 3 channels, .* found shape \[2, 1, 4, 4\]"):
        attack.attack(target, np.zeros((2, 1, 4, 4)), labels)
    with pytest.raises(
        InputError, match=r"in \[-1, 0, 1, 255, 0.5\], found 0 to 2, outside in 1 of 2 images"
    ):
        attack.attack(target, np.stack([np.zeros((3, 4, 4)), np.full((3, 4, 4), 2)]), labels)


def test_arrays_of_any_kind_become_images_and_labels() -> None:
    x = np.arange(24, dtype=np.float64).reshape(2, 3, 4)[::-1]
    x.flags.writeable = False
    for labels in (np.array([1, 0], np.uint16), [1, 0], np.array([True, False]), torch.tensor([1, 0]).int()):
        inputs, found = read_images(x, labels)
        np.testing.assert_array_equal(inputs, x)
        assert found.dtype == torch.int64
        assert found.tolist() == [1, 0]
