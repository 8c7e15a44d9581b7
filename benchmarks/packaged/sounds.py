"""Speech that eSpeak NG says, and what networks hear of it. Signals are float32 [samples] in [-1, 1]."""

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.signal import resample_poly

from packaged.packages import imported
from packaged.pictures import words

Array = NDArray[Any]
VOICES = ("en-us", "en", "de", "fr", "es", "it", "pl", "pt")
TIMBRES = ("m1", "m3", "f2", "f4", "m7", "f1")
SPOKEN = 22_050
"""Samples a second of what eSpeak NG says."""


def speech(rng: Generator, seconds: float, rate: int = 16_000) -> Array:
    """A sentence between two pauses, with noise."""
    signal = np.zeros(int(seconds * rate))
    said = resample_poly(_say(rng), rate // 50, SPOKEN // 50)
    start = int(rng.uniform(0, seconds / 4) * rate)
    part = said[: len(signal) - start]
    signal[start : start + len(part)] = part * rng.uniform(0.3, 1)
    noise = rng.normal(0, 10 ** rng.uniform(-4, -2), len(signal))
    return (signal + noise).astype(np.float32)


def frames(signal: Array, size: int, step: int) -> Array:
    """Pieces of a signal, [count, size]."""
    return np.lib.stride_tricks.sliding_window_view(signal, size)[::step]


def mel_spectrogram(signal: Array, bands: int = 40, size: int = 400, step: int = 160) -> Array:
    """Power in bands of Slaney's mel scale, up to 8 kHz, of a signal at 16 kHz; float32 [frames, bands]."""
    padded = np.pad(signal, size // 2)
    window = np.hanning(size + 1)[:-1]
    power = np.abs(np.fft.rfft(frames(padded, size, step) * window)) ** 2
    edges = _slaney_hertz(np.linspace(0, 15 + np.log(8) / np.log(6.4) * 27, bands + 2))
    low, mid, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.linspace(0, 8_000, size // 2 + 1)
    triangles = np.clip(np.minimum((bins - low) / (mid - low), (high - bins) / (high - mid)), 0, None)
    return np.asarray(power @ (triangles * 2 / (high - low)).T, np.float32)


def deepfilter_features(signal: Array) -> dict[str, Array]:
    """The two inputs of DeepFilterNet3's encoder for a signal at 48 kHz.

    Returns:
        `feat_erb`, decibels in 32 bands less their running mean, [1, 1, frames, 32]; and `feat_spec`, the
        lowest 96 bins over the root of their running magnitude, [1, 2, frames, 96].
    """
    size, decay = 960, 0.99
    half = np.sin(np.pi * (np.arange(size) + 0.5) / size)
    spectrum = np.fft.rfft(frames(signal, size, size // 2) * np.sin(np.pi / 2 * half**2)) / size
    starts = np.cumsum([0, *_erb_widths()])[:-1]
    power = np.add.reduceat(np.abs(spectrum) ** 2, starts, axis=1) / _erb_widths()
    loud = 10 * np.log10(power + 1e-10)
    mean = _running(loud, np.linspace(-60, -90, 32), decay)
    low = spectrum[:, :96]
    low = low / np.sqrt(_running(np.abs(low), np.linspace(0.001, 0.0001, 96), decay))
    return {
        "feat_erb": ((loud - mean) / 40)[None, None].astype(np.float32),
        "feat_spec": np.stack([low.real, low.imag])[None].astype(np.float32),
    }


def _running(values: Array, start: Array, decay: float) -> Array:
    """The exponential mean up to each frame."""
    means, mean = np.empty_like(values), start
    for number, frame in enumerate(values):
        mean = decay * mean + (1 - decay) * frame
        means[number] = mean
    return means


def _slaney_hertz(mel: Array) -> Array:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


def _erb_widths(bands: int = 32, least: int = 2, bins: int = 481, rate: int = 48_000) -> list[int]:
    """Bins in each band, evenly on the scale of equivalent rectangular bandwidths."""
    scale, unit = 9.265, 24.7 * 9.265
    step = scale * np.log1p(rate / 2 / unit) / bands
    widths, before, over = [], 0, 0
    for band in range(1, bands + 1):
        edge = round(unit * np.expm1(band * step / scale) * (bins - 1) * 2 / rate)
        width = max(least, edge - before - over)
        over = max(0, width - (edge - before - over))
        widths.append(width)
        before = edge
    widths[-1] += bins - sum(widths)
    return widths


def _say(rng: Generator) -> Array:
    """A sentence in some voice, at `SPOKEN` samples a second."""
    library, parts, _ = _espeak()
    voice = f"{VOICES[rng.integers(len(VOICES))]}+{TIMBRES[rng.integers(len(TIMBRES))]}"
    library.espeak_SetVoiceByName(voice.encode())
    library.espeak_SetParameter(1, int(rng.integers(110, 190)), 0)  # words a minute
    library.espeak_SetParameter(3, int(rng.integers(20, 80)), 0)  # pitch
    text = " ".join(words(rng, 14)).encode()
    parts.clear()
    library.espeak_Synth(text, len(text) + 1, 0, 0, 0, 1, None, None)
    library.espeak_Synchronize()
    return np.concatenate(parts) / 2**15


@cache
def _espeak() -> tuple[Any, list[Array], object]:
    """The library, the list that it adds pieces of what it says to, and what adds them, to keep it alive."""
    loader = imported("espeakng_loader")
    library, parts = ctypes.CDLL(loader.get_library_path()), list[Array]()

    def hear(samples: Any, count: int, _events: object) -> int:
        if samples and count:
            parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    hearing = kind(hear)
    rate = library.espeak_Initialize(2, 0, loader.get_data_path().encode(), 0)  # 2: synchronous, not played
    assert rate == SPOKEN
    library.espeak_SetSynthCallback(hearing)
    return library, parts, hearing
