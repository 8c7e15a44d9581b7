"""The weights of the best epoch so far."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from muquant.training.progress import EpochMetrics


def best_epoch(history: Sequence[EpochMetrics]) -> int:
    """The number of the epoch after which the model was best on held-out images; of equals the first.

    Judged by the robust accuracy where it was measured, else by the accuracy.
    """
    return max(history, key=lambda record: (_score(record), -record.epoch)).epoch


class BestWeights:
    """A copy of a model's weights and buffers, taken whenever an epoch was the best so far.

    Attributes:
        tensors: the copy, by name; a checkpoint holds it.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.tensors = {f"best.{name}": tensor.clone() for name, tensor in model.state_dict().items()}

    def take(self, history: Sequence[EpochMetrics]) -> None:
        """Copy the model as it is, if the last epoch of `history` is the best."""
        if best_epoch(history) == history[-1].epoch:
            _copy(self._live(), self.tensors)

    def restore(self) -> None:
        """Copy the best weights over the model's."""
        _copy(self.tensors, self._live())

    def _live(self) -> dict[str, Tensor]:
        return {f"best.{name}": tensor for name, tensor in self._model.state_dict().items()}


def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(source[name])


def _score(record: EpochMetrics) -> float:
    score = record.validation_accuracy if record.robust_accuracy is None else record.robust_accuracy
    assert score is not None
    return score
