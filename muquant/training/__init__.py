"""Training: one loop, methods and everything else that can be chosen by name in registries.

options/          what a run is asked for: values that build nothing
run/              a run: its folder, its state, the loop
methods/          how the loss of a batch is made
feedback/         feedback learning: where a model is weak, and examples there
optimizers.py     one line each
schedules.py      learning rates, likewise
augmentations.py  random changes of images, likewise
perturbations.py  attacks of adversarial training, likewise
progress.py       what a run reports, and what it leaves behind
"""

from muquant.training.augmentations import AUGMENTATIONS
from muquant.training.methods import METHODS, Batch, BatchLoss, Method, RunView, Standard
from muquant.training.optimizers import OPTIMIZERS
from muquant.training.options.adversarial import AdversarialOptions
from muquant.training.options.config import KEEP, PRECISIONS, TrainingConfig
from muquant.training.options.ibp import IbpOptions
from muquant.training.options.qat import QatOptions
from muquant.training.progress import EpochMetrics, OnNote, OnTrainingProgress, TrainingProgress
from muquant.training.run.folder import FinishedRun, load_run, read_run
from muquant.training.run.loop import TrainingResult, train
from muquant.training.run.session import OutOfTime
from muquant.training.schedules import SCHEDULES, learning_rate

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
    "IbpOptions",
    "Method",
    "OnNote",
    "OnTrainingProgress",
    "OutOfTime",
    "QatOptions",
    "RunView",
    "Standard",
    "TrainingConfig",
    "TrainingProgress",
    "TrainingResult",
    "learning_rate",
    "load_run",
    "read_run",
    "train",
]
