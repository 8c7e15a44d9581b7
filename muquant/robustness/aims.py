"""Rules by which each image gets the class that attacks aim at. One function, one line in `AIMS`."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from muquant.attacks import Target
from muquant.base.errors import InputError
from muquant.base.seeds import generator_for
from muquant.robustness.runner import Sample
from muquant.robustness.subject import batched_logits

Aim = Callable[[Sample, Target, int], Tensor]
"""(sample, target, seed) -> for each image another class than its label, int64 [N]"""


def at_random(sample: Sample, target: Target, seed: int) -> Tensor:
    """Any other class, drawn evenly; the same ones for all models."""
    count = (len(sample),)
    shift = torch.randint(1, sample.classes, count, generator=generator_for(seed, "target classes"))
    return (sample.labels + shift) % sample.classes


def least_likely(sample: Sample, target: Target, seed: int) -> Tensor:
    """The class with the smallest logit of the clean image: the hardest one, by and large."""
    with target.ready(), torch.no_grad():
        logits = batched_logits(target, sample.images)[:, : sample.classes]
    return logits.scatter(1, sample.labels[:, None], torch.inf).argmin(1)


def following(sample: Sample, target: Target, seed: int) -> Tensor:
    """The class after the label, and the first one after the last."""
    return (sample.labels + 1) % sample.classes


AIMS: dict[str, Aim] = {"random": at_random, "least-likely": least_likely, "next": following}


def fixed_class(rule: str, classes: int) -> int | None:
    """The class that a rule names by its number; None where it is a name of `AIMS`, or "".

    Raises:
        InputError: it is neither, or there is no such class.
    """
    if not rule or rule in AIMS:
        return None
    number = int(rule) if rule.isdecimal() and len(rule) < 10 else classes
    if number >= classes:
        raise InputError(
            f"target class: expected a class from 0 to {classes - 1}, or {', '.join(AIMS)}, found {rule!r}"
        )
    return number


def aimed(sample: Sample, rule: str, target: Target, seed: int) -> Sample:
    """The sample with the classes that attacks on a target aim at; as it is where the rule is "".

    Raises:
        InputError: there is no such rule or class.
    """
    if not rule:
        return sample
    number = fixed_class(rule, sample.classes)
    classes = AIMS[rule](sample, target, seed) if number is None else torch.full_like(sample.labels, number)
    return replace(sample, target_classes=classes)
