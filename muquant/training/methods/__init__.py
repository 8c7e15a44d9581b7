"""Training methods: how the loss of a batch is made. One file each, one line here."""

from muquant.training.methods.adversarial import Adversarial
from muquant.training.methods.feedback import Feedback
from muquant.training.methods.method import Batch, BatchLoss, Method, RunView
from muquant.training.methods.standard import Standard
from muquant.training.options.adversarial import AdversarialOptions

METHODS: dict[str, type[Method]] = {
    "standard": Standard,
    "adversarial": Adversarial,
    "feedback": Feedback,
}

__all__ = [
    "METHODS",
    "Adversarial",
    "AdversarialOptions",
    "Batch",
    "BatchLoss",
    "Feedback",
    "Method",
    "RunView",
    "Standard",
]
