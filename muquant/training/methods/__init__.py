"""Training methods: how the loss of a batch is made. One file each, one line here."""

from muquant.training.methods.batch import Batch, BatchLoss, Method
from muquant.training.methods.standard import standard

METHODS: dict[str, Method] = {
    "standard": standard,
}

__all__ = ["METHODS", "Batch", "BatchLoss", "Method", "standard"]
