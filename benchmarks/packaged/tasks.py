"""How alike the answers of two networks are, by what a network is for: {figure: value}."""

from collections.abc import Callable
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Answer = dict[str, Array]
"""The outputs for one input, by name."""
Task = Callable[[list[Answer], list[Answer]], dict[str, float]]
"""(the float network's answers, the other's) -> figures."""


def nothing(_wanted: list[Answer], _found: list[Answer]) -> dict[str, float]:
    """No figure but SQNR."""
    return {}


def same_class(wanted: list[Answer], found: list[Answer]) -> dict[str, float]:
    """Of class scores, the first output."""
    return {"same class": _equal(wanted, found, lambda scores: scores.argmax(-1))}


def same_text(wanted: list[Answer], found: list[Answer]) -> dict[str, float]:
    """Of characters' scores at each step, where repetitions and 0 are dropped."""

    def texts(scores: Array) -> Array:
        return np.array([str([c for c, _ in groupby(line.argmax(-1)) if c]) for line in scores])

    return {
        "same line of text": _equal(wanted, found, texts),
        "same step": _equal(wanted, found, lambda scores: scores.argmax(-1)),
    }


def same_region(wanted: list[Answer], found: list[Answer]) -> dict[str, float]:
    """Of a map of probabilities, where text is."""
    pairs = [(_first(one) > 0.3, _first(other) > 0.3) for one, other in zip(wanted, found, strict=True)]
    both, either = (sum(int(way(*pair).sum()) for pair in pairs) for way in (np.logical_and, np.logical_or))
    return {"text region, intersection over union": both / max(1, either)}


def same_labels(wanted: list[Answer], found: list[Answer]) -> dict[str, float]:
    """Of boxes [1, 4 + labels, boxes]: which labels are in the picture, and the F1 of all labels."""
    sets = [
        tuple(set(np.flatnonzero((_first(one)[0, 4:] > 0.2).any(-1))) for one in pair)
        for pair in zip(wanted, found, strict=True)
    ]
    shared, named = sum(len(a & b) for a, b in sets), sum(len(a) + len(b) for a, b in sets)
    return {
        "same labels": float(np.mean([a == b for a, b in sets])),
        "labels, F1": 2 * shared / max(1, named),
    }


def same_decision(output: str, threshold: float = 0.5) -> Task:
    """Of probabilities: which side of the threshold they are on."""
    return lambda wanted, found: {
        f"same decision at {threshold:g}": _equal(wanted, found, lambda value: value > threshold, output)
    }


def same_pitch(wanted: list[Answer], found: list[Answer]) -> dict[str, float]:
    """Of pitches' scores, 20 cents apart, where the float network is sure of one."""
    one, other = (np.concatenate([_first(answer) for answer in answers]) for answers in (wanted, found))
    sure = one.max(-1) > 0.5
    apart = np.abs(one.argmax(-1) - other.argmax(-1))[sure]
    return {"same pitch": float((apart == 0).mean()), "within 40 cents": float((apart <= 2).mean())}


def same_direction(wanted: list[Answer], found: list[Answer]) -> dict[str, float]:
    """Of vectors of length 1."""
    cosines = [(_first(one) * _first(other)).sum(-1) for one, other in zip(wanted, found, strict=True)]
    return {"cosine": float(np.mean(np.concatenate(cosines)))}


def same_token(wanted: list[Answer], found: list[Answer]) -> dict[str, float]:
    """Of logits [1, length, tokens] and the text's own "tokens" [1, length]: the likeliest token, the
    Kullback-Leibler divergence in nat, and the perplexity over the float network's."""
    divergences = []
    for one, other in zip(wanted, found, strict=True):
        p, q = (_log_softmax(_first(each).astype(np.float64)) for each in (one, other))
        divergences.append((np.exp(p) * (p - q)).sum(-1).ravel())
    return {
        "same next token": _equal(wanted, found, lambda scores: scores.argmax(-1)),
        "divergence, nat": float(np.mean(np.concatenate(divergences))),
        "perplexity over float": _perplexity(found) / _perplexity(wanted),
    }


def _perplexity(answers: list[Answer]) -> float:
    """Of each token but the first, by those before it."""
    losses = [
        -np.take_along_axis(
            _log_softmax(_first(each).astype(np.float64))[:, :-1], each["tokens"][:, 1:, None], 2
        )
        for each in answers
    ]
    return float(np.exp(np.mean(np.concatenate(losses, None))))


def sqnr(wanted: list[Answer], found: list[Answer]) -> dict[str, float | None]:
    """dB of each output over all inputs; None where it is the same.

    Raises:
        ValueError: an output is no number where the float network's is one.
    """
    return {
        name: _decibels([one[name] for one in wanted], [one[name] for one in found]) for name in wanted[0]
    }


def _decibels(wanted: list[Array], found: list[Array]) -> float | None:
    signal = noise = 0.0
    for one, other in zip(wanted, found, strict=True):
        if one.shape != other.shape or np.isfinite(one).all() > np.isfinite(other).all():
            raise ValueError(f"outputs of shape {other.shape}, or not finite, for those of {one.shape}")
        one, other = one.astype(np.float64), other.astype(np.float64)
        signal, noise = signal + float((one**2).sum()), noise + float(((one - other) ** 2).sum())
    return float(10 * np.log10(signal / noise)) if noise else None


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def _first(answer: Answer) -> Array:
    return next(iter(answer.values()))


def _equal(
    wanted: list[Answer], found: list[Answer], decide: Callable[[Array], Array], output: str | None = None
) -> float:
    """The share of decisions that are the same."""
    same = [
        decide(_first(one) if output is None else one[output])
        == decide(_first(other) if output is None else other[output])
        for one, other in zip(wanted, found, strict=True)
    ]
    return float(np.mean(np.concatenate([each.ravel() for each in same])))
