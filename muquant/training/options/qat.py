"""The options of quantization-aware training."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from muquant.base.errors import InputError
from muquant.base.values import check_fields, field_values
from muquant.format.spec import MuLawSpec


@dataclass(frozen=True)
class QatOptions:
    """The format that a model is trained for, and how.

    Attributes:
        bits: width of a code, 2 to 8.
        overrides: (layers, width) pairs: other widths for some layers, see `prepare_qat`.
        mu: companding parameter; None is learned.
        granularity: which weights share a scale: "tensor", "channel" or "group:G".
        levels: "mid-rise" or "mid-tread"; None is the one that the method needs. Certified training needs
            levels with an exact zero: bounds add up the magnitudes of weights, and without it none is small.
        layers: "all", "last:K" or a regular expression.
        start: the fraction of the run's steps, at least 0 and below 1, that is trained in float; scale and mu
            are searched then.
        rate: learning rate of scale and mu, in units of the weights' one, 0 or more. Both are learned by
            their logarithms, so it is about a relative change.
        lipschitz: weight of the sum over layers of ||W W^T - I||_F^2, which keeps layers from amplifying the
            quantization error (Lin, Gan, Han, "Defensive Quantization", ICLR 2019); 0 or more.
        error: weight of the sum over layers of ||W - Q(W)||_F^2 / ||W||_F^2, which draws weights to their
            levels; 0 or more.

    Raises:
        InputError: a value is of another type or out of range.
    """

    bits: int = 3
    overrides: tuple[tuple[str, int], ...] = ()
    mu: float | None = None
    granularity: str = "channel"
    levels: str | None = None
    layers: str = "all"
    start: float = 0.0
    rate: float = 1.0
    lipschitz: float = 0.0
    error: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, _RANGES, "training option")
        _ = self.spec  # whose own checks are made

    @property
    def spec(self) -> MuLawSpec:
        """The format of the layers that no override picks."""
        mu = "auto" if self.mu is None else self.mu
        levels: Any = self.levels or "mid-rise"
        return MuLawSpec(self.bits, mu, granularity=self.granularity, levels=levels)  # type: ignore[arg-type]

    def complete(self, method: str) -> Self:
        """The same options for a training method, with a choice in place of None."""
        return replace(self, levels=self.levels or ("mid-tread" if method == "ibp" else self.spec.levels))

    @classmethod
    def from_dict(cls, document: object) -> Self:
        """Read what `dataclasses.asdict` made of it, from a source that is not trusted.

        Raises:
            InputError: a field is missing, unknown, of another type or out of range.
        """
        values: dict[str, Any] = field_values(cls, document, "options of quantization-aware training")
        pairs = values["overrides"]
        try:
            values["overrides"] = tuple((str(layers), int(bits)) for layers, bits in pairs)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"training option overrides: expected pairs of layers and a width, found {pairs!r:.80}; "
                f"take a file that muquant wrote"
            ) from error
        return cls(**values)


_RANGES: Mapping[str, tuple[float, float]] = {
    "start": (0, 1),
    "rate": (0, 1e3),
    "lipschitz": (0, 1e6),
    "error": (0, 1e6),
}
