"""A module on samples, float and compressed side by side: each layer as soon as those in front are done."""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from muquant.compression.calibration.batches import BATCH_SIZE, Samples, rows_of
from muquant.compression.calibration.collect import NOT_REACHED, run_samples
from muquant.compression.calibration.operators import Draw, Product, most_vectors
from muquant.compression.calibration.padding import filled_positions
from muquant.compression.calibration.paused import PausedCall
from muquant.compression.calibration.watch import Layout, Watch, contents, layout_of, slow_attention
from muquant.compression.layers import Weight
from muquant.format.rows import to_matrix
from muquant.models.arguments import Arguments
from muquant.quantization.moments import InputMoments
from muquant.quantization.outcome import Outcome
from muquant.quantization.sums import MomentSums, VectorSums
from muquant.quantization.threads import one_thread

MEMORY = 2**30
"""Bytes of what calls that wait may hold; of more samples only some are taken."""
FEWEST = 32
"""Samples that are taken at least; where fewer fit in memory, layers are not taken one after the other."""
MOST_CALLS = 64
"""Batches that wait side by side."""


class _Found(NamedTuple):
    """Where a product meets a weight that is watched.

    Attributes:
        weight: it.
        layout: of it in memory.
    """

    weight: Weight
    layout: Layout


def in_line(
    model: nn.Module, weights: Sequence[Weight], samples: tuple[Samples, Samples]
) -> tuple[list[Weight], tuple[Samples, Samples]]:
    """Return those weights that can be taken one after the other, and as many samples as fit in memory and
    show each of them as many vectors as are taken.

    They are multiplied once, as a whole, in a call. None are, where too few samples fit.

    Args:
        model: in evaluation mode, on the CPU.
        weights: of it.
        samples: to fit to and held out.

    Raises:
        InputError: it does not run on the samples.
    """
    first, known = samples[0].first, _by_memory(model, weights)
    uses = dict.fromkeys(weights, 0)
    storages = {weight.value.untyped_storage().data_ptr(): weight for weight in weights}
    largest, enough = 0, 0.0

    def take(product: Product) -> None:
        nonlocal largest, enough
        found = storages.get(product.weight.untyped_storage().data_ptr())
        if found is not None:
            largest = max(largest, product.operand.nbytes)
            inputs = found.channels.inputs(tuple(found.value.shape))
            enough = max(enough, most_vectors(inputs) * inputs / max(product.operand.numel(), 1))
            whole = known.get(product.weight.data_ptr())
            uses[found] += 1 if whole is not None and _is(product, whole) else 2

    with torch.no_grad(), slow_attention(), Watch(take):
        run_samples(model, first)
    # a layer's input and what is added to it later, of both networks
    holds = MEMORY // max(4 * largest // rows_of(first), 1)
    count = sum(own.count for own in samples)
    if holds < min(count, FEWEST):
        return [], samples
    most = min(holds, max(math.ceil(enough * rows_of(first)), FEWEST))
    some = [own if most >= count else own.some(max(own.count * most // count, 1)) for own in samples]
    parts = sum(len(own.parts) for own in some)
    if not any(own.whole for own in some) and parts > MOST_CALLS:
        some = [own.some(max(own.count * MOST_CALLS // parts, 1)) for own in some]
    return [weight for weight, count in uses.items() if count == 1], (some[0], some[1])


def one_after_another(
    model: nn.Module,
    weights: Sequence[Weight],
    samples: tuple[Samples, Samples],
    done: Mapping[Weight, Outcome],
) -> Iterator[tuple[Weight, InputMoments | None, str]]:
    """Yield weights in the order in which a module multiplies by them, each with what it is multiplied by
    where those before are in few bits, and how far that is from what the float module multiplies it by.

    Both modules run once on every batch: each call waits before the products until the weight is done.

    Args:
        model: in evaluation mode, on the CPU; it must not change.
        weights: of it, see `in_line`.
        samples: to fit to and held out.
        done: what became of weights that were yielded, and of others; those that are missing stay float.

    Raises:
        InputError: the model does not run on the samples, or makes NaN or infinity of them.
    """
    changed, put = copy.deepcopy(model), set[Weight]()
    sides = [_by_memory(each, weights) for each in (model, changed)]
    parameters = {parameter: name for name, parameter in model.named_parameters()}
    total, names = sum(own.count for own in samples), Arguments.of(model).names
    with ExitStack() as stack:
        stack.enter_context(slow_attention())
        pairs: list[_Pair] = []
        for own, judged in zip(samples, (False, True), strict=True):
            for batch in own.batches(BATCH_SIZE):
                calls = [
                    PausedCall(module, batch, partial(_stops, side))
                    for module, side in zip((model, changed), sides, strict=True)
                ]
                for call in calls:
                    stack.callback(call.close)
                filled = filled_positions(zip(batch.names or names, batch.tensors, strict=False))
                pairs.append(_Pair(calls, sides, len(pairs), rows_of(batch) / total, filled, judged))
        left = dict.fromkeys(weights)
        known: InputMoments | None = None
        last: tuple[list[list[tuple[Any, ...]]], list[list[Product]]] = [], []
        while True:
            for weight in done.keys() - put:
                _put(changed, weight, done[weight], parameters)
                put.add(weight)
            for pair in pairs:
                pair.go_on()
            waiting = {weight for pair in pairs for weight in pair.weights}
            if not waiting:
                break
            weight = next(each for each in left if each in waiting)
            met = [pair.met(weight) for pair in pairs]
            key = [[(*contents(product.operand), product.how) for product in products] for products in met]
            if key != last[0]:  # else it shares what it is multiplied by, as do query, key and value
                known = _moments(weight, pairs, met, drifts=bool(put))
                last = key, met  # operands are held, so that nothing else is put in their place
            yield weight, known, NOT_REACHED if known is None else ""
            del left[weight]
            for side in sides:
                for place in [place for place, found in side.items() if found.weight is weight]:
                    del side[place]
    yield from ((weight, None, NOT_REACHED) for weight in left)


@dataclass(eq=False)
class _Pair:
    """The calls of the float and of the changed module with one batch.

    Attributes:
        calls: both.
        sides: what each stops at.
        seed: of the draws of vectors.
        share: of all samples that are in the batch.
        filled: its positions that are no padding.
        judged: whether it is held out.
    """

    calls: Sequence[PausedCall]
    sides: Sequence[Mapping[int, _Found]]
    seed: int
    share: float
    filled: tuple[Tensor, ...]
    judged: bool

    @property
    def weights(self) -> list[Weight]:
        """What each of the calls waits for, where it does."""
        at = zip(self.calls, self.sides, strict=True)
        return [side[call.product.weight.data_ptr()].weight for call, side in at if call.product is not None]

    def go_on(self) -> None:
        """Let both calls run until each waits for a weight that is not done."""
        for call, side in zip(self.calls, self.sides, strict=True):
            if call.product is None or call.product.weight.data_ptr() not in side:
                call.go_on()

    def met(self, weight: Weight) -> list[Product]:
        """Return the products with a weight that both calls wait before; none where not both do."""
        if self.weights != [weight, weight]:
            return []
        return [call.product for call in self.calls if call.product is not None]

    def sums(self, products: Iterable[Product], *, drifts: bool) -> VectorSums | None:
        """Sum up what a weight is multiplied by; None where that has other shapes in both. `drifts` says
        whether it may differ."""
        with one_thread():
            exact, vectors = (
                product.vectors(Draw(Generator().manual_seed(self.seed), self.share, self.filled)).float()
                for product in products
            )
            if exact.shape != vectors.shape:
                return None
            return VectorSums.of(vectors, exact if drifts else None, judged=self.judged)


def _moments(
    weight: Weight, pairs: Iterable[_Pair], met: Iterable[list[Product]], *, drifts: bool
) -> InputMoments | None:
    """Return the moments of what a weight is multiplied by, where calls wait for it."""
    shape = to_matrix(weight.value, weight.channels).shape
    fit, held_out = (MomentSums(weight.name, shape) for _ in range(2))
    for pair, products in zip(pairs, met, strict=True):
        part = pair.sums(products, drifts=drifts) if products else None
        if part is not None:
            (held_out if pair.judged else fit).add(part)
    if not (fit.count and held_out.count):
        return None
    return InputMoments.of(fit.moments(), held_out.moments())


def _by_memory(module: nn.Module, weights: Iterable[Weight]) -> dict[int, _Found]:
    """Address of a weight in a module, or in a copy of it -> that."""
    values = ((weight, module.get_parameter(weight.name)) for weight in weights)
    return {value.data_ptr(): _Found(weight, layout_of(value, weight.channels)) for weight, value in values}


def _stops(side: Mapping[int, _Found], product: Product) -> bool:
    found = side.get(product.weight.data_ptr())
    return found is not None and _is(product, found)


def _is(product: Product, found: _Found) -> bool:
    return layout_of(product.weight, product.channels) == found.layout


@torch.no_grad()
def _put(changed: nn.Module, weight: Weight, outcome: Outcome, names: Mapping[nn.Parameter, str]) -> None:
    """Give a copy what became of a weight and of its bias, in place: calls that wait have views of them.

    `names` are those of the model's parameters.
    """
    changed.get_parameter(weight.name).copy_(outcome.tensor.dequantize())
    if outcome.shift is not None and weight.own_bias is not None:
        changed.get_parameter(names[weight.own_bias]).add_(outcome.shift)
