"""Training methods: how the loss of a batch is made.

One file each, one line here, and one in `METHOD_OPTIONS` of `training/options/config.py`.
"""

from muquant.training.methods.adversarial import Adversarial
from muquant.training.methods.feedback import Feedback
from muquant.training.methods.ibp import Ibp
from muquant.training.methods.method import Batch, BatchLoss, Method, RunView
from muquant.training.methods.standard import Standard

METHODS: dict[str, type[Method]] = {
    "standard": Standard,
    "adversarial": Adversarial,
    "feedback": Feedback,
    "ibp": Ibp,
}

__all__ = [
    "METHODS",
    "Adversarial",
    "Batch",
    "BatchLoss",
    "Feedback",
    "Ibp",
    "Method",
    "RunView",
    "Standard",
]
