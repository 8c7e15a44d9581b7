"""The networks that the benchmarks of attacks attack: small, on MNIST, one ordinary and one robust."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muquant.data import load_dataset
from muquant.models import Classifier
from muquant.training import AdversarialOptions, TrainingConfig, train

FOLDER = Path("runs/attack-nets")
SEED = 0
KINDS: dict[str, dict[str, Any]] = {
    "ordinary": {"epochs": 4},
    "robust": {
        "epochs": 6,
        "method": "adversarial",
        "adversarial": AdversarialOptions(epsilon=0.3, attack_steps=5, attack_step_size=0.1),
    },
}
"""What is trained. Attack steps much longer than 0.1 are what training overfits to."""


def config(kind: str, seed: int) -> TrainingConfig:
    """The run of a network of `KINDS`."""
    return TrainingConfig(model="cnn4-small", seed=seed, **KINDS[kind])


def network(kind: str, seed: int, folder: Path) -> Classifier:
    """Train a network of `KINDS`, or take it from a finished run in the folder."""
    return train(config(kind, seed), folder / f"{kind}-{seed}", resume=True).model.eval()


@dataclass(frozen=True, eq=False)
class Fixture:
    """A network and what it is attacked with.

    Attributes:
        model: trained, in evaluation mode, in its best form for any attack: with channels last, and with
            parameters that ask for no gradients, which spares libraries work that call `backward`.
        images: float32 [N, 1, 28, 28], the first of the test split.
        labels: int64 [N].
    """

    model: Classifier
    images: Tensor
    labels: Tensor


def fixture(kind: str, folder: Path, count: int) -> Fixture:
    """The network of `KINDS` with seed 0, and test images."""
    model = network(kind, SEED, folder).requires_grad_(False)
    model.to(memory_format=torch.channels_last)
    test = load_dataset("mnist", "test")
    return Fixture(model, test.inputs(torch.arange(count)), test.labels[:count])
