"""What a plan must keep within."""

import math
from dataclasses import dataclass

from muquant.base.errors import InputError
from muquant.compression.options import CompressionOptions


@dataclass(frozen=True)
class Limits:
    """At least one of two limits.

    Attributes:
        max_bytes: most bytes of packed codes and steps, all weights together.
        max_drop: most held-out answers that may differ from the float model's, in percentage points, 0 to
            100.

    Raises:
        InputError: a limit is out of range, or there is none.
    """

    max_bytes: int | None = None
    max_drop: float | None = None

    def __post_init__(self) -> None:
        size, drop = self.max_bytes, self.max_drop
        if size is None and drop is None:
            raise InputError("a plan needs a limit, found none; give max_bytes, max_drop or both")
        if size is not None and (type(size) is not int or size < 0):
            raise InputError(f"max_bytes is {size!r:.60}; expected a whole number of bytes")
        number = isinstance(drop, int | float) and not isinstance(drop, bool) and math.isfinite(drop)
        if drop is not None and (not number or not 0 <= drop <= 100):
            raise InputError(f"max_drop is {drop!r:.60}; expected percentage points, 0 to 100")

    def check(self, options: CompressionOptions) -> None:
        """Refuse what does not go together with a plan.

        Raises:
            InputError: something does not.
        """
        if options.layers == "auto":
            raise InputError(
                'layers "auto" chooses widths by ||dW||_2, and a plan by noise; leave one of the two out'
            )
        if options.format.domain == "mapped":
            raise InputError(
                'domain "mapped" changes the weights however many bits they get; a plan needs "decoded"'
            )
        if self.max_drop is not None and options.calibration is None:
            raise InputError(
                "max_drop is measured by running the model on held-out samples; give a calibration"
            )
        for name, width in options.overrides.items():
            if type(width) is not int:
                raise InputError(
                    f"override {name!r} is {width!r:.60}; expected a width: a plan knows one format for all"
                )
