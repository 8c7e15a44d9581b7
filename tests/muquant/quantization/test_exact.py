"""Constants that are no weights are told by their values, and trained weights are never taken for such."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray
from scipy import signal

from muquant.quantization.exact import exact_reason

Array = NDArray[Any]
PLACES = np.arange(256)


def fourier(window: str | tuple[str, float], length: int = 256) -> Array:
    """The real and imaginary parts of a short-time Fourier transform [2 bins, length]."""
    angle = 2 * np.pi * np.outer(np.arange(length // 2 + 1), np.arange(length)) / length
    taper: Array = signal.get_window(window, length)
    basis: Array = taper * np.concatenate([np.cos(angle), np.sin(angle)])
    return basis


def constant_q() -> Array:
    """Windowed waves, two octaves of 12, the higher the shorter."""
    basis = np.zeros((24, 2048))
    for row, octave in zip(basis, np.arange(24) / 12, strict=True):
        length = int(1600 / 2**octave)
        start = (2048 - length) // 2
        row[start : start + length] = np.hanning(length) * np.cos(0.1 * 2**octave * np.arange(length))
    return basis


def triangles() -> Array:
    """A mel filter bank [40, 201]."""
    mel = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 42)
    edges = 700 * (10 ** (mel / 2595) - 1)
    bins = np.linspace(0, 8000, 201)
    up = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(up, down))


def positions() -> Array:
    """The table of Vaswani et al. [100, 64]."""
    angle = np.arange(100)[:, None] / 10000 ** (np.arange(32) / 32)
    return np.stack([np.sin(angle), np.cos(angle)], 2).reshape(100, 64)


CONSTANTS: dict[str, tuple[str, Array]] = {
    "decoder of boxes": ("a ramp", np.arange(16.0).reshape(1, 16, 1, 1)),
    "ramp of tenths": ("a ramp", np.linspace(-1, 2, 31).reshape(1, 31)),
    "all equal": ("equal", np.full((3, 1, 3, 3), 1 / 9)),
    "indices": ("whole", np.random.default_rng(0).integers(0, 99, (40, 40)).astype(float)),
    "middles of cells": ("whole", np.stack(np.meshgrid(PLACES[:20] + 0.5, PLACES[:9] + 0.5)).reshape(2, -1)),
    "mask of 0 and 1": ("whole", np.tril(np.ones((12, 12)))),
    "mask of -inf": ("mask", np.triu(np.full((12, 12), -np.inf), 1)),
    "mask of -65504": ("mask", np.triu(np.full((12, 12), -65504.0), 1)),
    "scaled permutation": ("one number", 0.5 * np.eye(9)[np.random.default_rng(0).permutation(9)]),
    "blur of every channel": ("equal", np.tile(np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64.0, (8, 1, 1, 1))),
    "bare Fourier basis": ("sinusoids", fourier("boxcar")),
    "Fourier basis, Hann, of a Conv": ("sinusoids", fourier("hann")[:, None]),
    "Fourier basis, Hamming": ("sinusoids", fourier("hamming")),
    "Fourier basis, Kaiser": ("sinusoids", fourier(("kaiser", 8.0))),
    "Fourier basis of a MatMul": ("sinusoids", fourier("hann").T),
    "cosine transform": ("sinusoids", np.cos(np.pi / 40 * np.outer(np.arange(13), np.arange(40) + 0.5))),
    "constant-Q basis": ("sinusoids", constant_q()),
    "positions": ("sinusoids", positions()),
    "mel filter bank": ("bumps", triangles()),
    "mel filter bank of a MatMul": ("bumps", triangles().T),
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_are_told(name: str, dtype: type) -> None:
    word, values = CONSTANTS[name]
    reason = exact_reason(values.astype(dtype))
    assert reason is not None
    assert word in reason


SHAPES = st.sampled_from(
    [
        *((1, 1), (2, 2), (1, 9), (9, 1), (4, 4), (8, 1, 3, 3), (16, 1, 1, 1), (1, 16, 1, 1), (4, 1, 10)),
        *((3, 64), (64, 80), (80, 64), (2, 30, 8), (70, 1, 128)),
    ]
)
KINDS = st.sampled_from(
    ["normal", "ternary", "binary", "integers", "zeros", "one", "pruned", "channels", "smooth", "positive"]
)


def trained(kind: str, shape: tuple[int, ...], seed: int) -> Array:
    """Numbers as of a weight that was trained, for some kinds of training."""
    random = np.random.default_rng(seed)
    values = random.standard_normal(shape)
    match kind:
        case "ternary":
            values = np.sign(values) * (np.abs(values) > 0.6) * 0.37
        case "binary":
            values = np.where(values > 0, 1.0, -1.0)
        case "integers":
            values = np.round(4 * values)
        case "zeros":
            values = np.zeros(shape)
        case "one":
            values = values * (np.arange(values.size).reshape(shape) == random.integers(values.size))
        case "pruned":
            values = values * (random.random(shape) < 0.1)
        case "channels":
            values = values * (random.random((shape[0], *[1] * (len(shape) - 1))) < 0.5)
        case "smooth":  # filters like waves, as first layers learn them
            waves = np.cos(np.outer(random.random(shape[0]) * 3, np.arange(values[0].size)))
            values = waves.reshape(shape) + 0.05 * values
        case "positive":
            values = np.abs(values)
    return values


def degenerate(values: Array) -> bool:
    """Whether so few numbers differ that nothing tells them from a constant."""
    return bool(len(np.unique(values[values != 0])) < 2 or (values[0] == values).all()) or values.size < 16


@settings(deadline=None, max_examples=300)
@given(kind=KINDS, shape=SHAPES, seed=st.integers(0, 2**32 - 1), half=st.booleans())
def test_no_trained_weight_is_taken_for_a_constant(
    kind: str, shape: tuple[int, ...], seed: int, half: bool
) -> None:
    values = trained(kind, shape, seed).astype(np.float16 if half else np.float32)
    if kind in ("ternary", "binary", "one") and degenerate(values):
        return
    if kind == "integers" and values.min() >= 0:
        return
    assert exact_reason(values) is None


def test_of_bfloat16_too() -> None:
    from ml_dtypes import bfloat16

    assert exact_reason(np.arange(16).reshape(1, 16).astype(bfloat16)) is not None
    assert exact_reason(np.random.default_rng(0).standard_normal((16, 16)).astype(bfloat16)) is None


def test_layers_as_they_are_initialised_are_weights() -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(300, 70), torch.nn.Conv1d(1, 64, 512), torch.nn.Conv2d(3, 32, 7)]
    for layer in [*layers, torch.nn.Embedding(100, 64), torch.nn.Bilinear(20, 30, 40), torch.nn.LSTM(9, 40)]:
        for parameter in layer.parameters():
            assert exact_reason(parameter.detach().numpy()) is None


def test_vectors_and_single_numbers_say_nothing() -> None:
    for values in (
        np.zeros(()),
        np.ones(8),
        np.arange(9.0),
        np.ones((1, 1)),
        np.zeros((0, 8)),
        np.ones((8, 0)),
    ):
        assert exact_reason(values) is None


def test_a_tensor_with_nan_is_left_to_what_refuses_it() -> None:
    assert exact_reason(np.full((4, 4), np.nan)) is None
    assert exact_reason(np.where(np.eye(40) > 0, np.inf, np.random.default_rng(0).random((40, 40)))) is None
