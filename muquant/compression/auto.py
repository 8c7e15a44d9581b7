"""Which format a weight gets by its sensitivity: what `layers="auto"` tries, in which order, and what it
takes."""

from dataclasses import dataclass, replace

from muquant.format.spec import Domain, MuLawSpec

CRITERION = 1.0
"""The largest ||dW||_2 that is taken: above it a layer may amplify an error (Song, Fallon, Li, 2021)."""

WIDEST = 8


@dataclass(frozen=True)
class TriedFormat:
    """A format that was tried for a weight.

    Attributes:
        bits: width of a code.
        domain: "decoded" or "mapped".
        delta_norm: ||dW||_2 of the layer, or of the reshaped matrix where the layer's is not known.
    """

    bits: int
    domain: Domain
    delta_norm: float

    @property
    def good(self) -> bool:
        """Whether the criterion is met."""
        return self.delta_norm <= CRITERION


@dataclass(frozen=True)
class Choice:
    """What was tried for a weight.

    Attributes:
        name: path of the weight.
        trials: in their order; the last one is taken if it is good, else the weight stays float32.
    """

    name: str
    trials: tuple[TriedFormat, ...]

    @property
    def taken(self) -> TriedFormat | None:
        """The format of the weight, None for float32."""
        return self.trials[-1] if self.trials[-1].good else None


def candidates(spec: MuLawSpec) -> tuple[MuLawSpec, ...]:
    """Return the formats to try for a weight, the first good one to be taken.

    In the decoded domain these are all widths from the one asked for to 8 bits. In the mapped domain dW is
    F(W) - W, which more bits do not lessen: what cannot be mapped as asked is tried in the decoded domain,
    its mu searched.
    """
    mapped = spec.domain == "mapped"
    decoded = replace(spec, domain="decoded", mu="auto") if mapped else spec
    wider = tuple(decoded.with_bits(bits) for bits in range(spec.bits, WIDEST + 1))
    return (spec, *wider) if mapped else wider
