"""What errors of weights do to the answers of a network, by its gradients: of all weights in a few runs."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from muquant.compression.answers.distortion import residual

FEWEST, FOR_EACH = 32, 2
"""Directions that are drawn at least in all, and for each run."""

Run = Callable[[], Sequence[tuple[str, Tensor]]]
"""Runs a network on one sample or a few; returns the tensors of the result, with their names."""
OnRun = Callable[[int, int], None]
"""(place of the next run, their number), for progress."""
Errors = Mapping[str, Mapping[int, Tensor]]
"""Name of a weight -> width -> its error there, of any floating-point type."""
Distortions = Mapping[str, Mapping[int, float]]
"""Name of a weight -> width -> distortion of the answers, 0 or more."""
Gradients = Callable[[Errors], Distortions]
"""What errors of weights, one weight at a time, do to the answers; weights without gradients are left out."""


@torch.inference_mode(False)
@torch.enable_grad()
def by_gradients(
    weights: Mapping[str, Tensor], errors: Errors, runs: Sequence[Run], on_run: OnRun | None = None
) -> Distortions:
    """Return the distortion of the answers that an error of each weight alone brings, to second order.

    The distortion is |J e|^2, of the error e and the Jacobian J of what `residual` makes of the outputs. With
    v drawn so that E[v v^T] = 1 it is the mean of (v^T J e)^2, and v^T J is one gradient for all weights and
    all their errors (Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1990). Its
    relative deviation is the root of 2 over the number of draws, and what samples differ by.

    Args:
        weights: name -> the tensor that the network computes with; gradients are switched on while it runs.
        errors: of these weights, the same shapes but for ones.
        runs: of the network, with gradients.
        on_run: called before each run.

    Returns:
        those on which floating-point outputs depend so that there is a gradient; others are left out.
    """
    before = {name: weight.requires_grad for name, weight in weights.items()}
    sums = {name: dict.fromkeys(own, 0.0) for name, own in errors.items()}
    generator, draws = torch.Generator().manual_seed(0), max(FOR_EACH, math.ceil(FEWEST / len(runs)))
    try:
        for weight in weights.values():
            weight.requires_grad_(True)
        for place, run in enumerate(runs):
            if on_run is not None:
                on_run(place, len(runs))
            apart = [residual(name, each.detach(), each) for name, each in run() if each.requires_grad]
            for draw in range(draws if apart else 0):
                along = torch.stack([_along(each, generator) for each in apart]).sum() / len(apart) ** 0.5
                found = torch.autograd.grad(
                    along, list(weights.values()), retain_graph=draw < draws - 1, allow_unused=True
                )
                for (name, own), gradient in zip(sums.items(), found, strict=True):
                    for bits in own if gradient is not None else ():
                        own[bits] += _product(gradient, errors[name][bits])
    finally:
        for name, weight in weights.items():
            weight.requires_grad_(before[name])
    return {
        name: {bits: each / (draws * len(runs)) for bits, each in own.items()}
        for name, own in sums.items()
        if all(0 < each < math.inf for each in own.values())
    }


def _along(values: Tensor, generator: torch.Generator) -> Tensor:
    return (values * torch.randn(values.shape, generator=generator).to(values)).sum()


def _product(gradient: Tensor, error: Tensor) -> float:
    return float(torch.dot(gradient.flatten().float(), error.flatten().float())) ** 2
