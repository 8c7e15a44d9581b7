"""What tuning did, in figures and words."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TuningReport:
    """How the training of a whole network went.

    Attributes:
        before: mean `distortion` of the outputs on held-out samples at the start.
        after: likewise now; at most `before`.
        step: after which it was best; 0 where nothing was better than the start, which then is kept.
        steps: that were taken.
        seconds: that it took.
        not_tuned: why there was no training; "" where there was.
    """

    before: float = 0.0
    after: float = 0.0
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    not_tuned: str = ""

    @property
    def words(self) -> str:
        """What was done, in a line."""
        if self.not_tuned:
            return f"Not tuned: {self.not_tuned}"
        took = f"Tuned for {self.steps} steps in {self.seconds:.0f} s"
        if not self.step:
            return f"{took}: nothing was better on held-out samples, so all stays as it was rounded"
        share = 100 * self.after / self.before
        return f"{took}: on held-out samples the error of the outputs is {share:.0f} % of what it was"
