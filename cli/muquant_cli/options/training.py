"""The options of `muquant train` that make a `TrainingConfig`: one for each field, with its default."""

from collections.abc import Callable, Iterable
from dataclasses import Field, fields
from typing import Any, get_args

import click

from muquant.attacks.norms import parse_epsilon
from muquant.base.errors import InputError
from muquant.data import dataset_names
from muquant.format.spec import Levels
from muquant.models import model_names
from muquant.training import (
    AUGMENTATIONS,
    KEEP,
    METHODS,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    AdversarialOptions,
    QatOptions,
    TrainingConfig,
)
from muquant.training.feedback import DIRECTIONS, FeedbackConfig
from muquant.training.options.adversarial import TRAINING_ATTACKS
from muquant.training.options.ibp import IbpOptions
from muquant_cli.options.format import parse_bits

GROUPS: dict[str, tuple[type, str]] = {
    "adversarial": (AdversarialOptions, ""),
    "feedback": (FeedbackConfig, "feedback-"),
    "ibp": (IbpOptions, "ibp-"),
    "qat": (QatOptions, "qat-"),
}
"""Field of `TrainingConfig` that is a group of options -> its class, and what the names of its options begin
with."""

_HELP = {
    "data": f"Data set: {', '.join(dataset_names())}.",
    "model": f"Model: {', '.join(model_names())}.",
    "method": "What the loss is.",
    "epochs": "Passes over the training data.",
    "batch-size": "Images in a step.",
    "optimizer": "Rule of the steps.",
    "lr": "Peak learning rate.",
    "weight-decay": "Weight decay.",
    "momentum": "Momentum of sgd.",
    "schedule": "How the learning rate changes.",
    "warmup": "Fraction of the steps in which the rate rises.",
    "label-smoothing": "Label smoothing, 0 to 1.",
    "augment": "Random changes of the images.",
    "cutmix": "Mix images by rectangles, the share drawn from Beta(A, A); 1 is usual.",
    "precision": "Arithmetic; bf16 is faster only on processors that have it.",
    "seed": "Seed of everything random.",
    "validation": "Fraction of the training data held out.",
    "device": "auto, cpu or cuda.",
    "average": "Keep the mean of the weights over this fraction of the steps, at the end.",
    "average-decay": "Average exponentially: what is left of a step's share after another, such as 0.999.",
    "keep": "Keep the weights of the last epoch, or of the best on held-out images.",
    "compile": "Compile the steps: a minute at first, faster on GPUs.",
    "epsilon": "Linf radius to defend, such as 0.3 or 8/255.  [default: the usual one of the data set]",
    "attack": "How images are attacked; n-fgsm takes one step, atta goes on from the epoch before.",
    "attack-steps": "Gradient steps of the attack.  [default: pgd 5, atta 2, n-fgsm 1]",
    "attack-step-size": "Length of an attack step.  [default: 2.5 epsilon / steps of pgd, less of others]",
    "epsilon-warmup": "Fraction of the steps in which epsilon and the attack steps rise.",
    "trades": "Weight of the TRADES loss; 0: train on adversarial images alone.",
    "awp": "Take the loss where weights are moved by this share of their norm to raise it; 0.005 is usual.",
    "feedback-rounds": "How often examples are made, evenly over the epochs after the start.",
    "feedback-start": "Fraction of the epochs before the first round; 0 with the --init of a standard run.",
    "feedback-high-share": "Fraction of the classes that are the most robust ones.",
    "feedback-low-share": "Fraction of the classes that are the least robust ones.",
    "feedback-high-samples": "Images of each of the most robust classes that examples are made from.",
    "feedback-medium-samples": "Likewise, of the classes in between.",
    "feedback-low-samples": "Likewise, of the least robust ones.",
    "feedback-directions": "Random directions from each image in which the boundary is looked for.",
    "feedback-nearest": "Those of them with the smallest margins, on which examples are placed.",
    "feedback-direction-kind": "How directions are drawn; others than random are for comparison.",
    "feedback-placed-from": "Examples are placed at this multiple of the margin at least.",
    "feedback-placed-to": "And below this one.",
    "feedback-cap": "L2 distance up to which the boundary is looked for.",
    "feedback-bisections": "How often the cap is halved: a margin is exact to cap / 2^N.",
    "feedback-robustness-samples": "Images by which the robustness of a class is judged.",
    "ibp-epsilon": "Linf radius to certify.  [default: the usual one of the data set]",
    "ibp-start": "Fraction of the steps that train on images as they are.",
    "ibp-ramp": "Fraction of the steps after these in which epsilon rises.",
    "ibp-clean": "Weight of the images' own loss while balls are trained on, 0 to 1.",
    "ibp-attacked": "Likewise of attacked images (MTL-IBP), with --ibp-clean 1 at most.",
    "ibp-balance": "Weight of what keeps intervals narrow while epsilon rises.",
    "qat-bits": 'Width of a code, 2 to 8; other widths for some layers: "3,conv1=8,fc.*=4".',
    "qat-mu": "Companding parameter.  [default: learned]",
    "qat-granularity": "Which weights share a scale: tensor, channel or group:G.",
    "qat-levels": "Levels without, or with, an exact zero.  [default: mid-rise; mid-tread for ibp]",
    "qat-layers": "Which layers to quantize: all, last:K or REGEX.",
    "qat-start": "Fraction of the steps that is trained in float first.",
    "qat-rate": "Learning rate of scale and mu, in units of the weights' one.",
    "qat-lipschitz": "Weight of ||W W^T - I||^2, which keeps layers from amplifying errors.",
    "qat-error": "Weight of the relative quantization error.",
}
_CHOICES: dict[str, Iterable[str]] = {
    "method": METHODS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "augment": AUGMENTATIONS,
    "precision": PRECISIONS,
    "keep": KEEP,
    "attack": TRAINING_ATTACKS,
    "feedback-direction-kind": DIRECTIONS,
    "qat-levels": get_args(Levels),
}
_WITHIN = "__"
"""Between group and field in the name of a parameter."""

_PART_OF_BITS = "overrides"
"""The field of `QatOptions` that `--qat-bits` gives with the width."""


class _Number(click.ParamType[float]):
    """A number, or a fraction such as 8/255."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it, or fail as click does, which names the option."""
        try:
            return parse_epsilon(value)
        except InputError:
            self.fail(f'expected a number >= 0 such as 0.3 or "8/255", found {value!r}', param, ctx)


def config_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the function takes them as keywords for `read_config`."""
    for group, (options, prefix) in reversed(GROUPS.items()):
        for field in reversed(fields(options)):
            if field.name != _PART_OF_BITS:
                function = _group_option(group, prefix, field)(function)
    function = click.option("--qat", is_flag=True, help="Train for few bits, with any method.")(function)
    for field in reversed(fields(TrainingConfig)):
        if field.name not in GROUPS:
            name = field.name.replace("_", "-")
            function = click.option(
                f"--{name}", type=_kind(name, field), default=field.default, help=_HELP[name]
            )(function)
    return function


def read_config(qat: bool, options: dict[str, Any]) -> TrainingConfig:
    """Make the configuration; a group of which nothing was given is left to its defaults.

    Raises:
        InputError: a value is out of range, or belongs to a method or to training that was not asked for.
    """
    plain: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {"qat": {}} if qat else {}
    for name, value in options.items():
        group, _, field = name.partition(_WITHIN)
        if not field:
            plain[name] = value
        elif value is not None:
            groups.setdefault(group, {})[field] = value
    if "qat" in groups:
        if not qat:
            raise InputError(f"--qat-{next(iter(groups['qat']))} without --qat; add it, or leave this out")
        if "bits" in groups["qat"]:
            bits, overrides = parse_bits(groups["qat"]["bits"])
            groups["qat"] |= {"bits": bits, _PART_OF_BITS: tuple(overrides.items())}
    return TrainingConfig(**plain, **{name: GROUPS[name][0](**given) for name, given in groups.items()})


def _kind(name: str, field: "Field[Any]") -> Any:
    """What an option takes; where its default is None a number, or a whole one if its field says so."""
    if name in _CHOICES:
        return click.Choice(list(_CHOICES[name]))
    if field.default is not None:
        return type(field.default)
    return int if field.type == int | None else _Number()


def _group_option(group: str, prefix: str, field: "Field[Any]") -> Callable[..., Any]:
    """The option of a field of a group; None where it is not given, so that its group can be left out."""
    name = prefix + field.name.replace("_", "-")
    known = field.default is not None
    return click.option(
        f"--{name}",
        f"{group}{_WITHIN}{field.name}",
        type=str if field.name == "bits" else _kind(name, field),
        show_default=False,
        help=_HELP[name] + (f"  [default: {field.default}]" if known else ""),
    )
