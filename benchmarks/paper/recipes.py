"""How the networks of the tables are trained. One entry in `RECIPES` for each data set and size."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from feedback import FEEDBACK, STANDARD

from muquant.training import AdversarialOptions, QatOptions, TrainingConfig
from muquant.training.feedback import FeedbackConfig


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        config: of `muquant train`.
        init: name of the run whose weights it begins with; None for random ones.
    """

    config: TrainingConfig
    init: str | None = None


@dataclass(frozen=True)
class Recipe:
    """The networks of one table.

    Attributes:
        runs: name -> training, each after those that it begins with. "orig", "adv" and "fl" are the source's
            three; "surrogate" is another one like "orig", with its own seed; "adv-qat" and "fl-qat" go on
            from "adv" and "fl" at 3 bits in every layer, each by its own method.
        layers: which of them "+mu" maps.
        mu: of the mapping.
        said: what differs from the source, in words for the reader of the table.
    """

    runs: Mapping[str, Run]
    layers: str
    mu: float
    said: str


_ADVERSARIAL = TrainingConfig(
    method="adversarial",
    epochs=12,
    lr=3e-3,
    weight_decay=0.01,
    augment="none",
    precision="bf16",
    keep="best",
    adversarial=AdversarialOptions(attack_steps=7),
)
_ADVERSARIAL_3_BITS = replace(
    _ADVERSARIAL,
    lr=2e-3,
    qat=QatOptions(),
    adversarial=AdversarialOptions(attack_steps=7, epsilon_warmup=0.1),
)


def _mnist() -> Recipe:
    """The runs of `feedback.py`, and adversarial ones; settings were chosen on held-out images."""
    orig, fl = (replace(config, precision="bf16") for config in (STANDARD, FEEDBACK))
    return Recipe(
        {
            "orig": Run(orig),
            "surrogate": Run(replace(orig, seed=1)),
            "fl": Run(fl, "orig"),
            "fl-qat": Run(replace(fl, epochs=6, qat=QatOptions()), "fl"),
            "adv": Run(_ADVERSARIAL),
            "adv-qat": Run(_ADVERSARIAL_3_BITS, "adv"),
        },
        layers="last:2",
        mu=64.0,
        said="cnn4 has the source's two convolutional and two fully connected layers; widths, mu and the "
        "number of mapped layers are not given there. Mapped are both fully connected layers with mu 64, "
        "which on held-out training images costs at most a point of clean accuracy.",
    )


@dataclass(frozen=True)
class Epochs:
    """How long the networks of a recipe are trained."""

    orig: int
    surrogate: int
    fl: int
    fl_qat: int
    adv: int
    adv_qat: int


def _cifar10(
    model: str, epochs: Epochs, feedback: FeedbackConfig, attack_steps: int, said: str, short: bool = False
) -> Recipe:
    """SGD with one cycle of the learning rate; a radius of 8/255.

    Args:
        model: a name of `muquant.models.MODELS`.
        epochs: of each run.
        feedback: how its examples are made.
        attack_steps: of adversarial training.
        said: as in `Recipe`.
        short: for a CPU: adversarial training begins with the weights of "orig", and steps are not compiled,
            which pays on GPUs alone.
    """
    orig = TrainingConfig(
        data="cifar10",
        model=model,
        epochs=epochs.orig,
        optimizer="sgd",
        lr=0.1,
        weight_decay=5e-4,
        augment="flip-crop-cutout",
        precision="bf16",
        validation=0.05,
        compile=not short,
    )
    fl = replace(orig, method="feedback", feedback=feedback, epochs=epochs.fl, lr=0.02)
    adv = replace(
        orig,
        method="adversarial",
        adversarial=AdversarialOptions(epsilon=8 / 255, attack_steps=attack_steps, epsilon_warmup=0.1),
        epochs=epochs.adv,
        lr=0.05 if short else orig.lr,
        augment="flip-crop",
        keep="best",
    )
    return Recipe(
        {
            "orig": Run(orig),
            "surrogate": Run(replace(orig, seed=1, epochs=epochs.surrogate)),
            "fl": Run(fl, "orig"),
            "fl-qat": Run(replace(fl, epochs=epochs.fl_qat, lr=0.01, qat=QatOptions()), "fl"),
            "adv": Run(adv, "orig" if short else None),
            "adv-qat": Run(replace(adv, epochs=epochs.adv_qat, lr=0.01, qat=QatOptions()), "adv"),
        },
        layers="last:3",
        mu=64.0,
        said=said,
    )


RECIPES: dict[str, Recipe] = {
    "cnn4": _mnist(),
    "wrn-16-2": _cifar10(
        "wrn-16-2",
        Epochs(orig=55, surrogate=6, fl=2, fl_qat=3, adv=4, adv_qat=2),
        FeedbackConfig(
            rounds=2,
            start=0.0,
            high_samples=10,
            medium_samples=40,
            low_samples=60,
            directions=50,
            nearest=20,
            bisections=8,
            robustness_samples=20,
        ),
        attack_steps=2,
        said="wrn-16-2 (0.7 million weights) for two CPU cores instead of the source's wide ResNet of 46 "
        "million. Adversarial training is shortened: 4 epochs of 2 attack steps from the weights of Orig., "
        "where the source trains with PGD throughout. Orig. is trained for 55 epochs, the surrogate for 6; "
        "F.L. goes on from Orig. for 2 epochs with 2 rounds of feedback, each with two fifths of the "
        "source's seed samples and a quarter of its directions.",
        short=True,
    ),
    "wrn-28-4": _cifar10(
        "wrn-28-4",
        Epochs(orig=60, surrogate=60, fl=12, fl_qat=8, adv=40, adv_qat=8),
        FeedbackConfig(start=0.0),
        attack_steps=10,
        said="wrn-28-4 (5.9 million weights) for one GPU, in pieces: --max-seconds 540 stops a call in time, "
        "and the next one goes on.",
    ),
    "wrn-34-10": _cifar10(
        "wrn-34-10",
        Epochs(orig=200, surrogate=200, fl=30, fl_qat=20, adv=110, adv_qat=20),
        FeedbackConfig(start=0.0),
        attack_steps=10,
        said="wrn-34-10 (46 million weights), the size that the source's 'wide ResNet-32' most likely has.",
    ),
}
"""Model -> its recipe. wrn-34-10 has not been run by us: on one H200-class GPU expect days."""

MODELS = {"mnist": "cnn4", "cifar10": "wrn-16-2"}
"""Data set -> the model that two CPU cores can train."""
