"""How the networks of the tables are trained. One entry in `RECIPES` for each data set and size."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from muquant.feedback import FeedbackConfig
from muquant.training import AdversarialOptions, QatOptions, TrainingConfig


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


def _recipe(
    orig: TrainingConfig,
    adv: TrainingConfig,
    fl: TrainingConfig,
    adv_qat: TrainingConfig,
    fl_qat: TrainingConfig,
    *,
    adv_init: str | None = None,
    surrogate_epochs: int | None = None,
    layers: str,
    mu: float,
    said: str,
) -> Recipe:
    surrogate = replace(orig, seed=orig.seed + 1, epochs=surrogate_epochs or orig.epochs)
    runs = {
        "orig": Run(orig),
        "surrogate": Run(surrogate),
        "fl": Run(fl, "orig"),
        "fl-qat": Run(fl_qat, "fl"),
        "adv": Run(adv, adv_init),
        "adv-qat": Run(adv_qat, "adv"),
    }
    return Recipe(runs, layers, mu, said)


def _mnist() -> Recipe:
    """The runs of `robust_3bit.py` and `feedback.py`, set by held-out training images."""
    orig = TrainingConfig(data="mnist", model="cnn4", precision="bf16")
    fl = replace(orig, method="feedback", feedback=FeedbackConfig(start=0.0), epochs=12, lr=1e-3)
    adv = replace(
        orig,
        method="adversarial",
        epochs=12,
        lr=3e-3,
        weight_decay=0.01,
        augment="none",
        keep="best",
        adversarial=AdversarialOptions(attack_steps=7),
    )
    adv_qat = replace(
        adv,
        lr=2e-3,
        qat=QatOptions(),
        adversarial=AdversarialOptions(attack_steps=7, epsilon_warmup=0.1),
    )
    return _recipe(
        orig,
        adv,
        fl,
        adv_qat,
        replace(fl, epochs=6, qat=QatOptions()),
        layers="last:2",
        mu=64.0,
        said="cnn4 has the source's two convolutional and two fully connected layers; widths, mu and the "
        "number of mapped layers are not given there. Mapped are both fully connected layers with mu 64, "
        "which on held-out training images costs at most a point of clean accuracy.",
    )


def _cifar10(
    model: str,
    *,
    epochs: int,
    adv: int,
    steps: int,
    fl: int,
    qat: int,
    said: str,
    adv_init: str | None = None,
    surrogate_epochs: int | None = None,
    compile: bool = False,  # noqa: A002  # the option's name
) -> Recipe:
    """SGD with one cycle of the learning rate; 8/255, steps of a quarter of it for PGD-10."""
    base = TrainingConfig(
        data="cifar10",
        model=model,
        epochs=epochs,
        optimizer="sgd",
        lr=0.1,
        weight_decay=5e-4,
        augment="flip-crop",
        precision="bf16",
        validation=0.05,
        compile=compile,
    )
    attack = AdversarialOptions(epsilon=8 / 255, attack_steps=steps, epsilon_warmup=0.1)
    robust = replace(base, method="adversarial", epochs=adv, adversarial=attack, keep="best")
    feedback = replace(base, method="feedback", feedback=FeedbackConfig(start=0.0), epochs=fl, lr=0.02)
    return _recipe(
        base,
        replace(robust, lr=0.05) if adv_init else robust,
        feedback,
        replace(robust, epochs=qat, lr=0.01, qat=QatOptions()),
        replace(feedback, epochs=max(qat, feedback_rounds(feedback)), lr=0.01, qat=QatOptions()),
        adv_init=adv_init,
        surrogate_epochs=surrogate_epochs,
        layers="last:3",
        mu=64.0,
        said=said,
    )


def feedback_rounds(config: TrainingConfig) -> int:
    """How many rounds a run of feedback learning makes, each of which needs an epoch."""
    assert config.feedback is not None
    return config.feedback.rounds


RECIPES: dict[str, Recipe] = {
    "cnn4": _mnist(),
    "wrn-16-2": _cifar10(
        "wrn-16-2",
        epochs=40,
        adv=8,
        steps=2,
        fl=6,
        qat=2,
        adv_init="orig",
        surrogate_epochs=12,
        said="wrn-16-2 (0.7 million weights) for two CPU cores instead of the source's wide ResNet of 46 "
        "million. Adversarial training is shortened: 8 epochs of 2 attack steps from the weights of Orig., "
        "where the source trains with PGD throughout. The surrogate is trained for 12 epochs.",
    ),
    "wrn-28-4": _cifar10(
        "wrn-28-4",
        epochs=60,
        adv=40,
        steps=10,
        fl=12,
        qat=8,
        compile=True,
        said="wrn-28-4 (5.9 million weights) for one GPU, in pieces: --max-seconds 540 stops a call in time, "
        "and the next one goes on.",
    ),
    "wrn-34-10": _cifar10(
        "wrn-34-10",
        epochs=200,
        adv=110,
        steps=10,
        fl=30,
        qat=20,
        compile=True,
        said="wrn-34-10 (46 million weights), the size that the source's 'wide ResNet-32' most likely has.",
    ),
}
"""Model -> its recipe. wrn-34-10 has not been run by us: on one H200-class GPU expect days."""

MODELS = {"mnist": "cnn4", "cifar10": "wrn-16-2"}
"""Data set -> the model that two CPU cores can train."""
