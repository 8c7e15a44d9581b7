"""`muquant inspect --amplification`: how errors grow through a model, measured on test images."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import muquant
from muquant.attacks import ATTACKS, BallAttack, TorchTarget
from muquant.attacks.norms import random_start
from muquant.base.errors import InputError
from muquant.base.picture import check_format
from muquant.base.registry import look_up
from muquant.base.seeds import generator_for
from muquant.compression.amplification import Amplification, measure_amplification
from muquant.compression.pictures import plot_amplification
from muquant.data import load_dataset
from muquant.robustness import settings_for
from muquant_cli.output import Output
from muquant_cli.sources.run_folder import float_model

_SEED = 0


@dataclass(frozen=True)
class Perturbation:
    """What is done to test images.

    Attributes:
        data: name of the data set.
        attack: name of an attack within a ball.
        epsilon: its Linf radius; None for what is usual for the data set.
        limit: the first so many test images.
        root: folder of the data sets.
    """

    data: str
    attack: str
    epsilon: str | None
    limit: int
    root: Path | None

    @property
    def radius(self) -> float:
        """The radius as a number."""
        return settings_for(self.data, self.epsilon).epsilon

    @property
    def name(self) -> str:
        """Such as "pgd 0.3"."""
        return f"{self.attack} {self.radius:.3g}"

    def pairs(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Return clean images and their perturbed twins, [N, C, H, W] each.

        Noise goes to all images; of an attack, which is on the float model, those that it fooled are taken.
        """
        balls = {name: kind for name, kind in ATTACKS.items() if issubclass(kind, BallAttack)}
        kind = look_up("attack", self.attack, balls)
        test = load_dataset(self.data, "test", root=self.root)
        images, labels = test.inputs(slice(self.limit)), test.labels[: self.limit]
        if kind.corruption:
            generator = generator_for(_SEED, "noise")
            return images, random_start(images, self.radius, "linf", generator)
        result = kind(epsilon=self.radius).attack(TorchTarget(model), images, labels, seed=_SEED)
        if not result.success.any():
            raise InputError(
                f"{self.attack} with epsilon {self.radius:g} fooled the model on none of {len(images)} "
                "images; expected at least one; raise --epsilon or --limit"
            )
        return images[result.success], result.adversarial[result.success]


def run_amplification(
    output: Output, file: Path, run: Path, perturbation: Perturbation, picture: Path
) -> Amplification:
    """Measure how errors grow from the model of `run` to that in `file`, and draw it."""
    check_format(picture)
    model, compressed = float_model(run), muquant.load(file)
    with output.progress(f"Running {perturbation.attack}") as update:
        update(0, 1, f"on {perturbation.data}")
        clean, perturbed = perturbation.pairs(model)
    found = measure_amplification(model, compressed, clean, perturbed)
    plot_amplification(found, picture, perturbation.name)
    output.say(f"Drew {picture}")
    return found


def show_amplification(output: Output, found: Amplification, perturbation: Perturbation) -> dict[str, Any]:
    """Print the errors of each layer, and return them as a document."""
    rows = [
        (
            layer.name,
            "float" if layer.bits is None else layer.bits,
            *(
                f"{error:.2%}"
                for error in (
                    layer.perturbed,
                    layer.quantized.total,
                    layer.both.total,
                    layer.both.carried,
                    layer.both.quantization,
                    layer.both.joint,
                )
            ),
            f"{layer.gain:.3g}",
        )
        for layer in found.layers
    ]
    output.table(
        f"Error of each layer's output, relative to the float model on {found.count} clean images",
        ("layer", "bits", perturbation.name, "compressed", "both", "W dx", "dW x", "dW dx", "||dW x||/||x||"),
        rows,
    )
    if found.left_out:
        output.say(f"Not measured, as they are no calls of their own: {', '.join(found.left_out)}")
    return {"attack": perturbation.attack, "epsilon": perturbation.radius, "seed": _SEED, **asdict(found)}
