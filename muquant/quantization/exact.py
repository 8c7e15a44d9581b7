"""Constants that are no weights, told by their values: a few levels cannot hold what they mean."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_PEEK = 1024
"""Numbers that are looked at first: those of a trained weight rule out nearly everything."""
_ROWS = 48
"""Rows, spread over a matrix, that are looked at for waves; four of a trained weight are enough to tell."""
_MASKED = -1e3
"""From here down a number beside zeros is a mask's, that keeps a softmax from looking somewhere."""
_SHORTEST_WAVE, _SHORTEST_WINDOW = 8, 64
"""Numbers that a row needs to be told for a sinusoid, bare or under a window."""
_LOBE = 6
"""Bins of a spectrum on either side of its peak that hold a sinusoid under any usual window."""
_ROUNDING = {2: 1e-5, 4: 1e-8, 8: 1e-8}
"""Bytes of a number -> share of a bare sinusoid's power that rounding may be."""
_NOTHING = 1e-12
"""Share of another row's power from which a row counts as zero: sin(pi t) is not quite."""
_LEAK = 2e-5
"""Share of the power that a window may leave outside `_LOBE`."""


def exact_reason(values: Array) -> str | None:
    """Return why a tensor is no trained weight but a constant that has to stay exact; None for a weight.

    Constants are: numbers that are all equal, but not zero; a ramp, as a decoder of boxes sums up with;
    whole numbers from 0 up, such as positions, indices and masks; zeros beside one very low number, a mask;
    one number in some rows, at one place each, such as a permutation; rows that are all equal, as of a
    filter that blurs each channel; rows (or columns) that are sinusoids, bare or under a window, as of a
    Fourier or constant-Q transform; rows (or columns) that are bumps one after the other, as of a mel filter
    bank.

    Trained weights are none of these. Whole numbers of both signs are a weight: networks are trained to
    -1, 0, 1. So are zeros, which few bits hold exactly. Of a tensor in a file, not mapped into memory as a
    whole, a few pages are read where it is a weight.

    Args:
        values: of any shape and floating-point type.
    """
    if values.size < 2 or values.ndim < 2:
        return None
    peek = _wide(values.reshape(-1)[:_PEEK])
    if np.isnan(peek).any() or not (peek.any() or values.any()):
        return None
    reason = _by_number(values, peek)
    if reason is not None:
        return reason
    if not np.isfinite(peek).all():
        return None
    return _by_row(values)


def _wide(values: Array) -> Array:
    return values.astype(np.float64)


def _by_number(values: Array, peek: Array) -> str | None:
    """What single numbers, and their order, tell."""
    flat = values.reshape(-1)
    first = peek[0]
    if first and (peek == first).all() and (flat == flat[0]).all():
        return "all its numbers are equal"
    if _is_ramp(flat[:_PEEK]) and _is_ramp(flat):
        return "a ramp: each number is as far from the next"
    if _are_counts(peek) and _are_counts(flat):
        return "whole numbers, such as positions, indices or a mask"
    if ((peek == 0) | (peek <= _MASKED)).all():
        wide = _wide(flat)
        low = wide[wide != 0]
        if len(low) and low[0] <= _MASKED and (low == low[0]).all():
            return "a mask: zeros and one very low number"
    return None


def _is_ramp(flat: Array) -> bool:
    if flat.size < 4:
        return False
    wide = _wide(flat)
    if not np.isfinite(wide).all():
        return False
    steps = np.diff(wide)
    step = (wide[-1] - wide[0]) / len(steps)
    eps = np.finfo(np.float16 if flat.dtype.itemsize == 2 else np.float32).eps
    return bool(step and (np.abs(steps - step) <= 4 * eps * np.abs(wide).max()).all())


def _are_counts(flat: Array) -> bool:
    """Whether all are whole from 0 up, or all a half more, such as the middles of cells."""
    wide = _wide(flat)
    if not (np.isfinite(wide) & (wide >= 0)).all():
        return False
    return bool((wide % 1 == wide[0] % 1).all() and wide[0] % 0.5 == 0)


def _by_row(values: Array) -> str | None:
    """What the rows of the matrix [first axis, others], and of its transpose, tell; the kernel of a
    convolution in one dimension is a row."""
    rows = values.reshape(len(values), -1)
    if rows.shape[1] > 1 and len(rows) >= 4 and _equal_rows(rows):
        return "all its rows are equal: one filter for every channel"
    # of two axes the last kernels are the rows
    kernels = [values.reshape(-1, values.shape[-1])] if values.ndim > 2 else []
    for matrix in (rows, rows.T, *kernels):
        if _is_one_hot(matrix):
            return "one number in a row, always the same, such as an identity or a permutation"
        if _are_waves(matrix, _ROUNDING.get(values.dtype.itemsize, 1e-5)):
            return "its rows are sinusoids, such as a Fourier basis"
        if _are_bumps(matrix):
            return "its rows are bumps one after the other, such as a mel filter bank"
    return None


def _equal_rows(rows: Array) -> bool:
    return bool((rows[:4] == rows[0]).all() and rows[0].any() and (rows == rows[0]).all())


def _is_one_hot(rows: Array) -> bool:
    if min(rows.shape) < 2 or np.count_nonzero(rows[:4]) > 4 or np.count_nonzero(rows[:, :4]) > 4 * len(rows):
        return False
    if (np.count_nonzero(rows, 1) > 1).any():
        return False
    held = rows[rows != 0]
    return len(held) > 1 and bool((held == held[0]).all())


def _are_waves(matrix: Array, rounding: float) -> bool:
    """Whether some rows are sinusoids, and all that can be told are, zeros aside."""
    count, length = matrix.shape
    if count < 2 or length < _SHORTEST_WAVE:
        return False
    told, largest = 0, 0.0
    places = np.unique(np.linspace(0, count - 1, min(count, _ROWS)).astype(int))
    for place in np.random.default_rng(0).permutation(places):  # not the lowest frequencies first
        row = _wide(matrix[place])
        if not np.isfinite(row).all():
            return False
        power = float(row @ row)
        largest = max(largest, power)
        if power <= _NOTHING * largest:
            continue
        held = np.flatnonzero(row)
        if held[-1] - held[0] < length * 7 // 8:  # as in a constant-Q basis
            row = row[held[0] : held[-1] + 1]
        if len(row) < _SHORTEST_WAVE:
            return False
        found = _is_wave(row, rounding)
        if found is False:
            return False
        told += found is True
    return told >= max(2, len(places) // 8)


def _is_wave(row: Array, rounding: float) -> bool | None:
    """Whether a row is a sinusoid; None where it is too slow to tell from anything smooth."""
    power = float(row @ row)
    near = row[2:] + row[:-2]
    middle = row[1:-1]
    cosine = float(near @ middle) / max(float(middle @ middle), 1e-300)
    rest = near - cosine * middle  # x[t+1] + x[t-1] = 2 cos(w) x[t]
    if float(rest @ rest) <= rounding * power:
        return True if abs(cosine) < 1.9 else None
    if len(row) < _SHORTEST_WINDOW:
        return False
    spectrum = np.abs(np.fft.rfft(row)) ** 2
    peak = int(spectrum.argmax())
    inside = spectrum[max(peak - _LOBE, 0) : peak + _LOBE + 1].sum()
    if inside < (1 - _LEAK) * spectrum.sum():
        return False
    return True if _LOBE < peak < len(spectrum) - _LOBE else None


def _are_bumps(matrix: Array) -> bool:
    """Whether every row rises from zero and falls to zero again, later than the one before."""
    count, length = matrix.shape
    if count < 4 or length < 8 or (matrix[:4] < 0).any() or np.count_nonzero(matrix[:4]) > 2 * length:
        return False
    if (matrix < 0).any() or np.count_nonzero(matrix) * 2 > matrix.size:
        return False
    last = (-1, -1)
    bumps = 0
    for row in matrix:
        held = np.flatnonzero(row)
        if not len(held):
            continue
        ends = int(held[0]), int(held[-1])
        if len(held) != ends[1] - ends[0] + 1 or ends[0] < last[0] or ends[1] < last[1] or ends == last:
            return False
        bump = _wide(row[ends[0] : ends[1] + 1])
        top = int(bump.argmax())
        if (np.diff(bump[: top + 1]) < 0).any() or (np.diff(bump[top:]) > 0).any():
            return False
        last, bumps = ends, bumps + 1
    return bumps >= 4
