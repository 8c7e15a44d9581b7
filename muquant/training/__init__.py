"""Training: one loop, methods and everything else that can be chosen by name in registries."""

from muquant.evaluation import evaluate, logits
from muquant.training.augmentations import AUGMENTATIONS
from muquant.training.config import KEEP, PRECISIONS, TrainingConfig
from muquant.training.loop import TrainingResult, train
from muquant.training.methods import METHODS, AdversarialOptions, Batch, BatchLoss, Method, Standard
from muquant.training.optimizers import OPTIMIZERS
from muquant.training.progress import EpochMetrics, OnProgress, Progress
from muquant.training.qat_options import QatOptions
from muquant.training.runs import FinishedRun, load_run, read_run
from muquant.training.schedules import SCHEDULES, learning_rate
from muquant.training.session import OutOfTime

__all__ = [
    "AUGMENTATIONS",
    "KEEP",
    "METHODS",
    "OPTIMIZERS",
    "PRECISIONS",
    "SCHEDULES",
    "AdversarialOptions",
    "Batch",
    "BatchLoss",
    "EpochMetrics",
    "FinishedRun",
    "Method",
    "OnProgress",
    "OutOfTime",
    "Progress",
    "QatOptions",
    "Standard",
    "TrainingConfig",
    "TrainingResult",
    "evaluate",
    "learning_rate",
    "load_run",
    "logits",
    "read_run",
    "train",
]
