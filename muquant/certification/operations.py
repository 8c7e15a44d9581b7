"""What networks are made of, and what bounds become of in it: one class for each kind of operation."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Function = Callable[[Tensor], Tensor]

UNIT = 1.01 * 2.0**-24
"""Unit roundoff of float32, and a hundredth of it for the double precision in which bounds are computed: some
10^6 times its own roundoff."""


@dataclass(frozen=True, eq=False)
class Range:
    """Where a value of the network lies, each tensor [N, ...].

    Attributes:
        lower: the least.
        upper: the greatest, of exact arithmetic.
        error: by how much a value that was computed in float32 may differ from the exact one; None where
            nobody asked.
    """

    lower: Tensor
    upper: Tensor
    error: Tensor | None = None

    @property
    def largest(self) -> Tensor:
        """The largest magnitude, that of computed values included."""
        largest = torch.maximum(self.lower.abs(), self.upper.abs())
        return largest if self.error is None else largest + self.error


class Operation(ABC):
    """One step of a network: of one input, or of several that are added."""

    @abstractmethod
    def forward(self, inputs: Sequence[Range]) -> Range:
        """Return where the output lies."""

    @abstractmethod
    def backward(self, rows: Tensor, inputs: Sequence[Range]) -> tuple[list[Tensor], Tensor]:
        """Return a lower bound of `rows * output`, linear in the inputs.

        Args:
            rows: coefficients [S, N, ...], S linear functions of the output of each image.
            inputs: where the inputs lie.

        Returns:
            Coefficients [S, N, ...] of each input, and what is added, [S, N].
        """


@dataclass(frozen=True, eq=False)
class Affine(Operation):
    """Any affine operation that treats images alike and apart.

    Attributes:
        apply: the operation, [N, ...] to [N, ...].
        linear: without what it adds.
        absolute: `linear` with the magnitudes of its coefficients.
        terms: roundings that one output goes through at most, in whatever order its terms are added: a
            number, or what tells it for each output from which inputs are not 0, float [N, ...] of 0 and 1.
            What is multiplied by 0 adds nothing, and is not rounded.
        added: the magnitude of what it adds and subtracts, for inputs of any size; broadcasts to the output.
    """

    apply: Function
    linear: Function
    absolute: Function
    terms: int | Function
    added: Tensor | float = 0.0

    def forward(self, inputs: Sequence[Range]) -> Range:
        """The image of an interval: the centre moves, the radius grows by the magnitudes."""
        (given,) = inputs
        centre = self.apply((given.lower + given.upper) / 2)
        radius = self.absolute((given.upper - given.lower) / 2)
        error = None
        if given.error is not None:
            # Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1
            terms = self.terms if isinstance(self.terms, int) else self.terms((given.largest > 0).to(centre))
            gamma = terms * UNIT / (1 - terms * UNIT)
            error = self.absolute(given.error) + gamma * (self.absolute(given.largest) + self.added)
        return Range(centre - radius, centre + radius, error)

    def backward(self, rows: Tensor, inputs: Sequence[Range]) -> tuple[list[Tensor], Tensor]:
        """The transposed operation."""
        zeros = torch.zeros_like(inputs[0].lower)
        bias = self.apply(zeros)
        count = len(rows)
        many = zeros.repeat(count, *[1] * (zeros.dim() - 1))
        transposed = torch.func.vjp(self.linear, many)[1]
        (found,) = transposed(rows.flatten(0, 1))
        return [found.unflatten(0, (count, -1))], (rows * bias).flatten(2).sum(2)


class Sum(Operation):
    """Inputs of one shape, added."""

    def forward(self, inputs: Sequence[Range]) -> Range:
        """Ends are added."""
        one, other = inputs
        error = None
        if one.error is not None and other.error is not None:
            error = one.error + other.error + UNIT * (one.largest + other.largest)
        return Range(one.lower + other.lower, one.upper + other.upper, error)

    def backward(self, rows: Tensor, inputs: Sequence[Range]) -> tuple[list[Tensor], Tensor]:
        """The same rows for both."""
        return [rows, rows], rows.new_zeros(rows.shape[:2])


class Relu(Operation):
    """max(x, 0)."""

    def forward(self, inputs: Sequence[Range]) -> Range:
        """It rises, and adds nothing to an error; what stays below 0 as computed, too, has none."""
        (given,) = inputs
        error = given.error
        if error is not None:
            error = torch.minimum(error, (given.upper + error).clamp(min=0))
        return Range(given.lower.clamp(min=0), given.upper.clamp(min=0), error)

    def backward(self, rows: Tensor, inputs: Sequence[Range]) -> tuple[list[Tensor], Tensor]:
        """Below the chord, and above 0 or x, whichever leaves less between (Zhang et al. 2018, CROWN)."""
        (given,) = inputs
        lower, upper = given.lower.clamp(max=0), given.upper.clamp(min=0)
        chord = upper / (upper - lower).clamp(min=torch.finfo(upper.dtype).tiny)
        under = ((upper > -lower) | (lower == 0)).to(chord) * (upper > 0)
        above, below = rows.clamp(min=0), rows.clamp(max=0)
        bias = (below * (-chord * lower)).flatten(2).sum(2)
        return [above * under + below * chord], bias


@dataclass(frozen=True, eq=False)
class MaxPool(Operation):
    """The largest of each window of the last two axes.

    Attributes:
        kernel: height and width of a window.
        stride: likewise.
        padding: likewise; what is outside counts as nothing.
        dilation: likewise.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def forward(self, inputs: Sequence[Range]) -> Range:
        """It rises, and its error is the largest of a window."""
        (given,) = inputs
        error = None if given.error is None else self._pool(given.error)
        return Range(self._pool(given.lower), self._pool(given.upper), error)

    def backward(self, rows: Tensor, inputs: Sequence[Range]) -> tuple[list[Tensor], Tensor]:
        """At least the input whose least is greatest; that very one where all others stay below it, else at
        most the greatest of all."""
        (given,) = inputs
        numbers = torch.arange(given.lower[0, 0].numel(), dtype=given.lower.dtype, device=rows.device)
        plane = numbers.reshape(1, 1, *given.lower.shape[2:])
        least, winner = self._windows(given.lower).max(2, keepdim=True)
        upper = self._windows(given.upper)
        sure = (least >= upper.scatter(2, winner, -torch.inf).amax(2, keepdim=True)).squeeze(2)
        place = self._windows(plane).expand_as(upper).gather(2, winner).squeeze(2).long()
        flat = rows.flatten(3)
        above, below = flat.clamp(min=0), flat.clamp(max=0)
        bias = (below * torch.where(sure, 0.0, upper.amax(2))).flatten(2).sum(2)
        found = rows.new_zeros((len(rows), *given.lower.flatten(2).shape))
        found.scatter_add_(3, place.expand_as(flat), above + below * sure)
        return [found.reshape(len(rows), *given.lower.shape)], bias

    def _pool(self, values: Tensor) -> Tensor:
        return functional.max_pool2d(values, self.kernel, self.stride, self.padding, self.dilation)

    def _windows(self, values: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, values of a window, windows]."""
        high, wide = self.padding
        padded = functional.pad(values, (wide, wide, high, high), value=-torch.inf)
        sizes = {"dilation": self.dilation, "stride": self.stride}
        found = functional.unfold(padded.flatten(0, 1)[:, None], self.kernel, **sizes)
        return found.reshape(*values.shape[:2], *found.shape[1:])
