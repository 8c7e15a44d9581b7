"""The weights of the best epoch so far."""

from collections.abc import Sequence

from torch import Tensor, nn

from muquant.training.progress import EpochMetrics
from muquant.training.run.state import copy_tensors


class BestWeights:
    """A copy of a model's weights and buffers, taken whenever an epoch was the best so far.

    Epochs are judged on held-out images: by the robust accuracy where it was measured, else by the accuracy.
    Of equal ones the first is the best.

    Args:
        model: whose weights.
        first_epoch: 1..epochs; earlier ones are not judged.

    Attributes:
        tensors: the copy, by name; a checkpoint holds it.
    """

    def __init__(self, model: nn.Module, first_epoch: int) -> None:
        self._model, self._first_epoch = model, first_epoch
        self.tensors = {f"best.{name}": tensor.clone() for name, tensor in model.state_dict().items()}

    def take(self, history: Sequence[EpochMetrics]) -> None:
        """Copy the model as it is, if the last epoch of `history` is the best."""
        if len(history) >= self._first_epoch and self._best(history) == history[-1].epoch:
            copy_tensors(self._live(), self.tensors)

    def restore(self, history: Sequence[EpochMetrics]) -> int:
        """Copy the best weights over the model's, and return the number of their epoch."""
        copy_tensors(self.tensors, self._live())
        return self._best(history)

    def _best(self, history: Sequence[EpochMetrics]) -> int:
        judged = history[self._first_epoch - 1 :]
        return max(judged, key=lambda record: (_score(record), -record.epoch)).epoch

    def _live(self) -> dict[str, Tensor]:
        return {f"best.{name}": tensor for name, tensor in self._model.state_dict().items()}


def _score(record: EpochMetrics) -> float:
    score = record.validation_accuracy if record.robust_accuracy is None else record.robust_accuracy
    assert score is not None
    return score
