"""The state of a run between two steps, and the checkpoint that holds it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from muquant.base.errors import InputError
from muquant.base.tensor_files import TensorFile, write_tensors
from muquant.base.values import check_fields
from muquant.training.progress import EpochMetrics

CHECKPOINT_SCHEMA = "muquant.checkpoint/1"


@dataclass(frozen=True)
class Position:
    """How far a run is. With the tensors and the config, this is all that continuing it takes.

    Attributes:
        step: steps done.
        loss: sum over the steps of the running epoch.
        correct: correctly classified images in the running epoch.
        seen: images in the running epoch.
        seconds: of training in the running epoch.
        history: the finished epochs.
    """

    step: int = 0
    loss: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    history: tuple[EpochMetrics, ...] = ()


def live_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Every tensor that a step changes, by name: weights, buffers and the optimizer's state.

    `create_state` has to be called before.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            tensors[f"optimizer.{name}.{key}"] = value
    return tensors


def copy_tensors(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Copy the values of tensors over those of the same names."""
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(source[name])


def create_state(optimizer: Optimizer) -> None:
    """Make a new optimizer allocate its state, which it does in its first step otherwise; all of it is zero.

    So every checkpoint holds the same tensors, also of parameters that have no gradient yet.
    """
    parameters = [(group, parameter) for group in optimizer.param_groups for parameter in group["params"]]
    for group, parameter in parameters:
        group["lr"] = 0.0  # nothing moves, not even by decay
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for _, parameter in parameters:
        for value in optimizer.state[parameter].values():
            value.zero_()


def save_checkpoint(
    path: Path, tensors: Mapping[str, Tensor], position: Position, identity: Mapping[str, Any]
) -> None:
    """Write a checkpoint over the previous one, whole or not at all.

    Args:
        path: of the file.
        tensors: what `live_tensors` returned.
        position: where the run stands.
        identity: JSON values that say whose checkpoint it is.
    """
    write_tensors(path, CHECKPOINT_SCHEMA, tensors, {**identity, "position": asdict(position)})


def read_position(file: TensorFile, steps_per_epoch: int) -> Position:
    """The position in a checkpoint's manifest.

    Raises:
        InputError: it is not one, or it counts other epochs than its steps make.
    """
    try:
        values = dict(file.manifest["position"])
        history = read_history(values.pop("history"))
        position = Position(
            step=int(values["step"]),
            loss=float(values["loss"]),
            correct=int(values["correct"]),
            seen=int(values["seen"]),
            seconds=float(values["seconds"]),
            history=history,
        )
        if position.step < 1 or position.step // steps_per_epoch != len(history):
            raise ValueError(position.step)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file.path}: its manifest is damaged; delete the file to start the run again"
        ) from error
    return position


def read_history(document: Any) -> tuple[EpochMetrics, ...]:
    """The finished epochs in a manifest: a list of objects with the fields of `EpochMetrics`.

    Raises:
        InputError: a field is of another type.
        TypeError: a field is missing or unknown, or there are none.
    """
    history = tuple(EpochMetrics(**record) for record in document)
    for record in history:
        check_fields(record, {}, "an epoch's")
    return history
