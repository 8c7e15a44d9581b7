"""What a model answers, as far as its accuracy depends on it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from muquant.base.errors import InputError
from muquant.compression.answers.classes import adds_up, class_axis
from muquant.compression.budget.plan import Drop

_LEAST = 1e-30
"""The smallest probability that is told from zero."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What is answered to some samples, or at some places of them.

    Attributes:
        said: the class with the largest value, float64; integers are answers already. Where NaN is among the
            values there is no answer, which is NaN: it differs from all others, itself among them.
        scores: the values [answers, classes], as logits, float32; None for integers.
    """

    said: Tensor
    scores: Tensor | None

    def margins(self, said: Tensor) -> Tensor:
        """By how much the scores of the classes `said` are above the largest other, float32 [answers]."""
        assert self.scores is not None
        chosen = said.long().reshape(-1, 1)
        others = self.scores.scatter(1, chosen, -math.inf).amax(1)
        return self.scores.gather(1, chosen)[:, 0] - others


def answers(output: Tensor) -> Answers:
    """Return what an output answers. Classes are where `class_axis` says.

    Raises:
        InputError: there is no axis of at least two classes.
    """
    if not output.is_floating_point():
        return Answers(output.double(), None)
    axis = class_axis(output.shape)
    if axis is None:
        raise InputError(
            "max_drop compares which class is answered; expected a first output [N, ..., classes], found "
            f"shape {tuple(output.shape)}; give max_bytes instead"
        )
    unknown = output.isnan().any(axis)
    said = torch.where(unknown, torch.nan, output.argmax(axis).double())
    logits = output.float().clamp(min=_LEAST).log() if adds_up(output, axis) else output.float()
    return Answers(said, logits.movedim(axis, -1).flatten(0, -2))


def count_changed(exact: Iterable[Answers], found: Iterable[Answers]) -> Drop:
    """Return how many answers of `found` differ from those of `exact`, batch by batch, and how many are to be
    expected to.

    A count of few answers is coarse: of 64 none may change where half a percent may. How sure the float model
    is of each, and how far the other's scores are from its own, tells more. The chance that an answer with
    the margin m changes is that of an error below -m, which is taken for normal with the power of all errors
    of margins. The mean over the answers is what is expected.
    """
    changed = count = lost = 0
    margins: list[Tensor] = []
    errors: list[Tensor] = []
    scored = True
    for one, other in zip(exact, found, strict=True):
        changed += int(torch.count_nonzero(one.said != other.said))
        count += one.said.numel()
        if one.scores is None or other.scores is None or one.scores.shape != other.scores.shape:
            scored = False
            continue
        known = ~(one.said.isnan() | other.said.isnan()).reshape(-1)
        lost += int(torch.count_nonzero(~known))
        said = one.said.nan_to_num(0)
        before, after = one.margins(said)[known].double(), other.margins(said)[known].double()
        margins.append(before)
        errors.append(after - before)
    if not count or not scored:
        return Drop(changed, count)
    chances = _chances(torch.cat(margins), torch.cat(errors))
    chances = torch.cat([chances, torch.ones(lost, dtype=torch.float64)])
    return Drop(changed, count, float(chances.mean()), float(chances.std(correction=0)) / math.sqrt(count))


def _chances(margins: Tensor, errors: Tensor) -> Tensor:
    """The chance of each answer to change, float64."""
    tells = margins.isfinite() & errors.isfinite()
    deviation = float(errors[tells].square().mean().sqrt()) if tells.any() else 0.0
    if not deviation:
        return (margins + errors < 0).double()
    normal = torch.special.ndtr(-margins / deviation)
    return torch.where(tells, normal, (~errors.isfinite()).double())
