"""The networks that the benchmarks of attacks attack: small, on MNIST, one ordinary and one robust."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from muquant.data import load_dataset
from muquant.models import Classifier
from muquant.training import AdversarialOptions, TrainingConfig, train

FOLDER = Path("runs/attack-nets")
SEED = 0
CONFIGS = {
    "ordinary": TrainingConfig(model="cnn4-small", epochs=2, seed=SEED),
    "robust": TrainingConfig(
        model="cnn4-small",
        method="adversarial",
        epochs=6,
        seed=SEED,
        adversarial=AdversarialOptions(epsilon=0.3, attack_steps=3),
    ),
}
"""Three steps of attack: with a single one, training overfits to it on some processors."""


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


def fixture(name: str, folder: Path, count: int) -> Fixture:
    """Train network `name` of `CONFIGS`, or take it from a finished run in the folder."""
    model = train(CONFIGS[name], folder / name, resume=True).model.eval().requires_grad_(False)
    model.to(memory_format=torch.channels_last)
    test = load_dataset("mnist", "test")
    return Fixture(model, test.inputs(torch.arange(count)), test.labels[:count])
