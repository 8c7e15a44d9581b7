"""The answers of a PyTorch module, before and after compression."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from muquant.base.errors import InputError, first_line
from muquant.compression.answers.compare import FloatAnswers
from muquant.compression.answers.report import EXAMPLE, FIT, HELD_OUT, SYNTHETIC, AnswersCheck
from muquant.compression.calibration.batches import BATCH_SIZE, rows_of
from muquant.compression.options import CompressionOptions
from muquant.models import Architecture
from muquant.models.calls import Example, Inputs, output_tensors, random_inputs
from muquant.models.leaves import from_0_to_1, leaves
from muquant.models.wrappers import peeled, plain_copy

B = TypeVar("B")

MOST_SAMPLES = 128
_DRAWN = 16
"""Inputs that are made up."""


def ask_module(
    model: nn.Module, options: CompressionOptions, example: Example | None = None
) -> FloatAnswers[Inputs]:
    """Run `model` before it is compressed: on the held-out samples where there are samples, else on the
    example. One that is constant, such as all zeros, says no more than a shape: then, as for models of
    `muquant.models` without an example, random numbers are drawn.

    Args:
        model: any module; it is not changed.
        options: of its compression.
        example: its inputs [N, ...] each, or None.
    """
    batches, inputs = _batches(model, options.taken_by_module(peeled(model)), example)
    if not inputs:
        return FloatAnswers(not_checked="nothing is known to run the model on; give an example or samples")
    module = plain_copy(model)
    try:
        answered = ((batch, run_module(module, batch), size) for batch, size in batches)
        return FloatAnswers.of(answered, lambda batch: run_module(module, batch), inputs)
    except Exception as error:  # whatever the module raises
        return FloatAnswers(
            not_checked=f"{type(model).__name__} does not run on {inputs}: {first_line(error)}"
        )


def ask_to_probe(
    module: nn.Module, options: CompressionOptions, example: Example | None, most: int, size: int
) -> FloatAnswers[Inputs]:
    """Run a float module on inputs on which widths may be chosen: samples to fit to, never those held out;
    without samples the example. Where that says no more than a shape, pictures that are made up (`leaves`),
    of models that take such alone: of other numbers nothing is known.

    Args:
        module: in evaluation mode, on the CPU; it is not changed.
        options: of its compression.
        example: its inputs [N, ...] each, or None.
        most: how many of them to take.
        size: of samples that are run together, where they may be cut.
    """
    if options.samples is not None:
        some = options.samples[0].some(most).batches(size)
        batches: Iterable[tuple[Inputs, int]] = [(batch, rows_of(batch)) for batch in some]
        inputs, most = FIT, options.samples[0].count
    else:
        batches, inputs = _batches(module, options, example)
        if inputs == SYNTHETIC:
            shapes = next(iter(batches))[0]
            batches, inputs = _pictures(shapes) if options.synthetic else (), inputs
    if not inputs or not batches:
        return FloatAnswers(not_checked="nothing is known to run the model on")

    def answered() -> Iterator[tuple[Inputs, list[tuple[str, Tensor]], int]]:
        done = 0
        for batch, size in batches:
            if done and done + size > most:
                return
            yield batch, run_module(module, batch), size
            done += size

    try:
        return FloatAnswers.of(answered(), lambda batch: run_module(module, batch), inputs, math.inf)
    except Exception as error:  # whatever the module raises
        return FloatAnswers(not_checked=f"{type(module).__name__} does not run: {first_line(error)}")


def ask_held_out(module: nn.Module, options: CompressionOptions, most: int) -> FloatAnswers[Inputs]:
    """Run a float module on held-out samples, beside which compressed ones are judged.

    Args:
        module: in evaluation mode, on the CPU.
        options: of its compression; with samples.
        most: of the samples.
    """
    assert options.samples is not None
    batches = options.samples[1].some(most).batches(BATCH_SIZE)
    answered = ((batch, run_module(module, batch), rows_of(batch)) for batch in batches)
    return FloatAnswers.of(answered, lambda batch: run_module(module, batch), HELD_OUT, math.inf)


def check_module(module: nn.Module, exact: FloatAnswers[Inputs]) -> AnswersCheck:
    """Compare a compressed module, which is not changed, with what `ask_module` has found.

    Raises:
        InputError: it does not run where the float one does.
    """
    own = copy.deepcopy(module)
    try:
        return exact.beside(lambda batch: run_module(own, batch))
    except Exception as error:  # whatever the module raises
        raise InputError(
            f"the compressed {type(module).__name__} does not run on {exact.inputs}, and the float one does: "
            f"{first_line(error)}; find out why, or leave the check out (check=False, --no-check)"
        ) from error


def first_batches(batches: Iterable[B], count: Callable[[B], int]) -> Iterator[B]:
    """Yield batches until there are `MOST_SAMPLES` samples in them.

    Args:
        batches: to begin with the first.
        count: returns how many samples one has.
    """
    done = 0
    for batch in batches:
        yield batch
        done += count(batch)
        if done >= MOST_SAMPLES:
            return


def _batches(
    model: nn.Module, options: CompressionOptions, example: Example | None
) -> tuple[Iterable[tuple[Inputs, int]], str]:
    if options.samples is not None:
        batches = first_batches(options.samples[1].batches(BATCH_SIZE), rows_of)
        return ((batch, rows_of(batch)) for batch in batches), HELD_OUT
    architecture = getattr(peeled(model), "architecture", None)
    if example is None and isinstance(architecture, Architecture):
        example = torch.zeros(1, *architecture.input_shape)
    if example is None:
        return (), ""
    inputs = Inputs.of(example)
    if not _says_no_more_than_a_shape(inputs.tensors):
        return [(inputs, len(inputs.tensors[0]) if inputs.tensors[0].dim() else 1)], EXAMPLE
    size = len(inputs.tensors[0])
    drawn = (Inputs.of(random_inputs(example, size, seed)) for seed in range(_DRAWN))
    return ((each, size) for each in drawn), SYNTHETIC


def _pictures(inputs: Inputs) -> list[tuple[Inputs, int]]:
    """Return pictures that are made up, from 0 to 1, or of mean 0 and deviation 1: networks take either;
    nothing, if it is no pictures in grey or colour [1, channels, height, width] that a model takes."""
    shapes = [tuple(tensor.shape) for tensor in inputs.tensors]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] not in (1, 3) or min(shapes[0]) == 0:
        return []
    random, drawn = np.random.default_rng(0), []
    for place in range(_DRAWN):
        pictures = leaves(random, 1, *shapes[0][1:])
        drawn.append(torch.from_numpy(pictures if place % 2 else from_0_to_1(pictures)))
    return [(inputs.map(lambda _, own=own: own), 1) for own in drawn]  # type: ignore[misc]


def _says_no_more_than_a_shape(tensors: Sequence[Tensor]) -> bool:
    """Whether all floating-point inputs are constant, there are some, and rows of all can be drawn."""
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    alike = len({len(tensor) if tensor.dim() else 0 for tensor in tensors} | {0}) == 2
    return bool(floating) and alike and all(bool((each == each.reshape(-1)[0]).all()) for each in floating)


def run_module(module: nn.Module, inputs: Inputs, *, gradients: bool = False) -> list[tuple[str, Tensor]]:
    """Return the tensors of a result, with `gradients` or without; who draws random numbers draws the same
    ones each time."""
    dtype = next((value.dtype for value in module.parameters() if value.is_floating_point()), torch.float32)
    own = inputs.map(
        lambda tensor: tensor.to("cpu", dtype if tensor.is_floating_point() else None, copy=True)
    )
    with torch.set_grad_enabled(gradients), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return output_tensors(own.call(module))
