"""Networks of ours: a recipe in float, trained at few bits for as many epochs, and rounded from float."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import muquant
from muquant.attacks import Norm, Threat
from muquant.data import load_dataset
from muquant.training import AdversarialOptions, IbpOptions, QatOptions, TrainingConfig, train
from robust.entry import Entry, Family

KEPT = Path(__file__).parent.parent / "models" / "paper-wrn-16-2"
"""Run folders, which `paper_tables.py` trained."""

AUTHOR = "muquant"
SAMPLES = 512
"""Training images that calibrate."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; what is trained at few bits gets the same epochs.

    Attributes:
        config: of the float network.
        norm, epsilon: what entries are attacked by.
        start: the part of the steps that a network trained at few bits is trained in float.
        init: run folder of the weights that all trainings begin with; None for random ones.
        further: what goes on from `config` for some epochs: in float, and at few bits; None where both are
            trained by `config`. Certified networks want it, at a low rate: at 3e-4 the codes of their small
            weights changed so fast that nothing was left of the certificates, and at 1e-4 they come and go
            from epoch to epoch where weights are not averaged.
    """

    config: TrainingConfig
    norm: Norm
    epsilon: float
    start: float = 0.5
    init: Path | None = None
    further: TrainingConfig | None = None

    def at(self, bits: int | None, seed: int) -> TrainingConfig:
        """The last training of the float network, or of one with a quantizer in place."""
        config = replace(self.further or self.config, seed=seed)
        return config if bits is None else replace(config, qat=QatOptions(bits=bits, start=self.start))

    def spec(self, bits: int) -> muquant.MuLawSpec:
        """The format of what is rounded: levels as for what is trained."""
        qat = self.at(bits, 0).qat
        assert qat is not None
        return qat.spec


_CERTIFIED = TrainingConfig(
    model="cnn4-strided",
    method="ibp",
    epochs=80,
    lr=1e-3,
    schedule="cosine",
    warmup=0.0,
    weight_decay=0.0,
    augment="none",
    precision="bf16",
    ibp=IbpOptions(epsilon=0.33, start=0.01, ramp=0.3),
)

_ROBUST = TrainingConfig(
    model="cnn4",
    method="adversarial",
    epochs=12,
    lr=3e-3,
    schedule="cosine",
    warmup=0.02,
    weight_decay=0.01,
    augment="none",
    precision="bf16",
    validation=0.02,
    average=0.5,
    average_decay=0.999,
    adversarial=AdversarialOptions(epsilon=0.3, attack="atta", trades=4.0),
)

RECIPES: Mapping[str, Recipe] = {
    "mnist-cnn4-atta": Recipe(
        _ROBUST,
        "linf",
        0.3,
        start=0.0,
        further=replace(
            _ROBUST,
            epochs=6,
            lr=2e-3,
            adversarial=AdversarialOptions(0.3, "atta", 4, 0.1, epsilon_warmup=0.0, trades=4.0),
        ),
    ),
    "mnist-cnn4-strided-mtl-ibp": Recipe(
        _CERTIFIED,
        "linf",
        0.3,
        start=0.0,
        further=replace(
            _CERTIFIED,
            epochs=8,
            lr=2e-4,
            average=0.6,
            average_decay=0.999,
            ibp=IbpOptions(epsilon=0.33, start=0.0, ramp=1e-5, attacked=0.8),
        ),
    ),
    "cifar10-wrn-16-2-nfgsm": Recipe(
        TrainingConfig(
            data="folder:data/cifar10",
            model="wrn-16-2",
            validation=0.05,
            method="adversarial",
            epochs=14,
            optimizer="sgd",
            lr=0.1,
            weight_decay=5e-4,
            augment="flip-crop",
            precision="bf16",
            average=0.5,
            average_decay=0.999,
            adversarial=AdversarialOptions(epsilon=8 / 255, attack="n-fgsm", epsilon_warmup=0.0),
        ),
        "linf",
        8 / 255,
        start=0.0,
        init=KEPT / "adv",
    ),
}
"""By the beginning of the entries' names."""


WIDTHS = (8, 4, 3, 2)
"""Bits of what is rounded."""

WAYS = ("rounded", "calibrated", "trained")
"""What is done to weights: names of `WEIGHTS`."""

TRAINED = (3, 2)
"""Bits of what is trained with the quantizer in place."""


def name_of(recipe: str, bits: int, weights: str, seed: int, threat: Threat | None = None) -> str:
    """The entry's name of a network of a recipe; its end tells a threat that is not the recipe's."""
    name = _of_seed(f"{recipe}-{bits}-{weights}", seed)
    return name if threat is None else f"{name}-{threat.norm}"


def _of_seed(name: str, seed: int) -> str:
    return f"{name}-seed{seed}" if seed else name


def climb(
    name: str,
    seed: int,
    runs: Path,
    seconds: float,
    widths: Collection[int] = WIDTHS,
    ways: Collection[str] = WAYS,
    threat: Threat | None = None,
) -> list[tuple[Entry, Path]]:
    """Train what is not trained yet, round it, and add what came out as entries.

    Args:
        name: of a recipe.
        seed: of the training; others than 0 end the entries' names.
        runs: folder of the runs, which are resumed.
        seconds: for each training, which then stops to be resumed; infinity for all that it needs.
        widths: those of `WIDTHS` that are wanted; the float network is always there.
        ways: those of `WAYS` that are wanted, likewise.
        threat: what the entries are attacked by; None for what the networks are trained against.

    Returns:
        Entries, and where their networks are.

    Raises:
        OutOfTime: the seconds were too few for a training.
    """
    recipe, folder = RECIPES[name], runs / _of_seed(name, seed)
    float_run, init = folder / "float", recipe.init
    if recipe.further is not None:
        init = folder / "begun"
        begun = replace(recipe.config, seed=seed)
        train(begun, init, init=recipe.init, resume=True, max_seconds=seconds)
    model = train(recipe.at(None, seed), float_run, init=init, resume=True, max_seconds=seconds).model
    ball = threat or Threat(recipe.norm, recipe.epsilon)
    assert ball.radius is not None
    made_by = f"python benchmarks/leaderboard.py ladder {name} --seed {seed}"
    if threat is not None:
        made_by += f" --threat {threat.norm} {threat.radius:g}"
    family = Family(
        data=recipe.config.data,
        norm=ball.norm,
        epsilon=ball.radius,
        made_by=made_by,
        author=AUTHOR,
        control=name_of(name, 32, "float", seed, threat),
    )

    def enter(bits: int, weights: str, path: Path) -> None:
        family.enter(name_of(name, bits, weights, seed, threat), weights, path, keep=bits == 3)

    enter(32, "float", float_run)
    for bits in widths:
        for weights, compress in _COMPRESS.items():
            if weights not in ways:
                continue
            path = folder / f"{weights}-{bits}.mq"
            if not path.exists():
                compress(model, recipe.spec(bits), recipe.config.data).save(path)
            enter(bits, weights, path)
    for bits in TRAINED:
        if bits not in widths or "trained" not in ways:
            continue
        config, run = recipe.at(bits, seed), folder / f"trained-{bits}"
        trained = train(config, run, init=init, resume=True, max_seconds=seconds).model
        path = folder / f"trained-{bits}.mq"
        if not path.exists():
            muquant.compress(trained).save(path)
        enter(bits, "trained", path)
    return family.made


def _rounded(model: torch.nn.Module, spec: muquant.MuLawSpec, data: str) -> muquant.CompressedModel:
    return muquant.compress(model, spec, flat=True)


def _calibrated(model: torch.nn.Module, spec: muquant.MuLawSpec, data: str) -> muquant.CompressedModel:
    images = load_dataset(data, "train")
    drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:SAMPLES]
    return muquant.compress(model, spec, calibration=images.inputs(drawn), flat=True)


_COMPRESS: dict[str, Callable[[torch.nn.Module, muquant.MuLawSpec, str], muquant.CompressedModel]] = {
    "rounded": _rounded,
    "calibrated": _calibrated,
}
