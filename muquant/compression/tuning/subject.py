"""What is tuned, how, and what becomes of it."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn

from muquant.compression.tuning.report import TuningReport
from muquant.format.tensor import QuantizedTensor

ENOUGH = 256
"""Samples from which on codes are learned at the full rate."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How fast things are learned, and what counts.

    Attributes:
        weights: of the floats behind the codes, in units of their scales, over the root of how many of them
            add up to an output: together they move it by as much, whatever their number.
        scales: of logarithms of scales.
        rest: of other parameters, in units of their own size.
        hidden: how much hidden states count beside outputs.
    """

    weights: float = 5e-3
    scales: float = 1e-3
    rest: float = 1e-3
    hidden: float = 1.0

    @classmethod
    def of(cls, samples: int) -> Self:
        """Return those for so many samples to train on: of few, codes learn more slowly, since they have the
        freedom to fit these alone."""
        return cls(weights=cls.weights * min(1.0, math.sqrt(samples / ENOUGH)))


@dataclass(frozen=True, eq=False)
class Subject:
    """What is tuned.

    Attributes:
        module: the network, in evaluation mode, its corrections in place; it is not changed.
        reference: the float network, likewise; its modules have the same paths.
        weights: paths of parameters of `module` -> the float weight, and what it is in few bits.
        rest: paths of other parameters of `module` that may move: biases, and what norms scale and shift by.
        layers: paths of modules whose outputs are hidden states that should stay as they were.
    """

    module: nn.Module
    reference: nn.Module
    weights: Mapping[str, tuple[Tensor, QuantizedTensor]]
    rest: Collection[str]
    layers: Sequence[str]


@dataclass(frozen=True, eq=False)
class Tuned:
    """What became of a network.

    Attributes:
        weights: by path, in the formats that they had.
        rest: the other parameters that could move, by path.
        report: how it went; where its `step` is 0 nothing has changed.
    """

    weights: Mapping[str, QuantizedTensor]
    rest: Mapping[str, Tensor]
    report: TuningReport
