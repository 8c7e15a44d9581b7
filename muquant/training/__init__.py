"""Training: one loop, methods and everything else that can be chosen by name in registries."""

from muquant.training.augmentations import AUGMENTATIONS
from muquant.training.config import PRECISIONS, TrainingConfig
from muquant.training.evaluation import evaluate, logits
from muquant.training.loop import TrainingResult, train
from muquant.training.methods import METHODS, Batch, BatchLoss, Method, standard
from muquant.training.optimizers import OPTIMIZERS
from muquant.training.progress import EpochMetrics, OnProgress, Progress
from muquant.training.runs import FinishedRun, load_run, read_run
from muquant.training.schedules import SCHEDULES, learning_rate

__all__ = [
    "AUGMENTATIONS",
    "METHODS",
    "OPTIMIZERS",
    "PRECISIONS",
    "SCHEDULES",
    "Batch",
    "BatchLoss",
    "EpochMetrics",
    "FinishedRun",
    "Method",
    "OnProgress",
    "Progress",
    "TrainingConfig",
    "TrainingResult",
    "evaluate",
    "learning_rate",
    "load_run",
    "logits",
    "read_run",
    "standard",
    "train",
]
