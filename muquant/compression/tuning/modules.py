"""A module as a subject of tuning."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from muquant.compression.calibration.batches import Samples, rows_of
from muquant.compression.layers import Weight
from muquant.compression.tuning.subject import Subject
from muquant.format.tensor import QuantizedTensor
from muquant.models.calls import Inputs
from muquant.quantization.exact import exact_reason

BATCH_SIZE = 8
"""Samples at a time."""
MOST_HELD_OUT = 64
"""Samples that judge."""


def subject_of(
    module: nn.Module, reference: nn.Module, done: Mapping[Weight, QuantizedTensor], *, rest: bool
) -> Subject:
    """Return what is tuned of a compressed module.

    Args:
        module: in evaluation mode, what became of its weights in place.
        reference: a copy of it from before.
        done: its weights.
        rest: whether its biases, and what norms scale and shift by, may move.
    """
    names = {weight.name for weight in done} | {alias for weight in done for alias in weight.aliases}
    others = (path for path, value in module.named_parameters() if path not in names and may_move(value))
    return Subject(
        module,
        reference,
        {
            weight.name: (reference.get_parameter(weight.name).detach(), tensor)
            for weight, tensor in done.items()
            if tensor.spec.domain == "decoded"  # a mapped weight is not meant to come near the float one
        },
        tuple(others) if rest else (),
        tuple(dict.fromkeys(owner.layer for weight in done for owner in weight.owners)),
    )


def batches_of(samples: tuple[Samples, Samples]) -> tuple[Samples, Samples]:
    """Return samples in batches to train on, and batches of some of those held out, which judge: `BATCH_SIZE`
    at a time where they may be run together, or cut."""
    fit, held_out = samples
    return _batched(fit), _batched(held_out.some(MOST_HELD_OUT))


def _batched(samples: Samples) -> Samples:
    parts: list[Inputs] = []
    for group in samples.joined():
        parts += group.batches(BATCH_SIZE) if rows_of(group) > BATCH_SIZE else [group]
    return replace(samples, parts=tuple(parts), whole=False)


def may_move(value: Tensor) -> bool:
    """Whether a tensor may be a bias, or what a norm scales or shifts by: several numbers along one axis that
    are no constant, see `exact_reason`."""
    if not value.is_floating_point():
        return False
    row = value.detach().float().reshape(1, -1)
    return row.numel() == max(value.shape, default=0) > 1 and exact_reason(row.cpu().numpy()) is None
