"""Run a model on samples, and keep the moments of what its weights are multiplied by."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from muquant.base.errors import InputError, first_line
from muquant.compression.calibration.batches import BATCH_SIZE, Samples, rows_of
from muquant.compression.calibration.operators import Draw, Product
from muquant.compression.calibration.padding import filled_positions
from muquant.compression.calibration.watch import Layout, Watch, contents, layout_of, slow_attention
from muquant.compression.layers import Weight
from muquant.format.rows import to_matrix
from muquant.models.arguments import Arguments
from muquant.models.calls import Inputs
from muquant.quantization.moments import Moments
from muquant.quantization.sums import MomentSums, VectorSums
from muquant.quantization.threads import one_thread

NOT_REACHED = "the samples do not reach it, or no product takes it as it is"


def collect_moments(
    model: nn.Module,
    weights: Sequence[Weight],
    samples: Samples,
    *,
    total: int | None = None,
    seed: int = 0,
    on_batch: Callable[[int, int], None] | None = None,
) -> dict[Weight, Moments | str]:
    """Return the moments of the inputs of `weights`, or why there are none.

    That is so where a weight is never multiplied as a whole: an embedding, an attention whose query, key and
    value differ, a layer that these inputs do not reach. Of a square weight that is used transposed too, only
    the uses as it is count.

    Args:
        model: in evaluation mode, on the CPU.
        weights: of `model`.
        samples: run `BATCH_SIZE` at a time where they may be cut.
        total: how many samples there are with those of other calls: where vectors are drawn of all, these get
            their share. None for no others.
        seed: which vectors are drawn where there are many.
        on_batch: called after each batch with the samples that were run, and their number.

    Raises:
        InputError: the model does not run on the samples, or makes NaN or infinity of them.
    """
    watched = {
        weight: _Watched(
            MomentSums(weight.name, to_matrix(weight.value, weight.channels).shape),
            layout_of(weight.value, weight.channels),
        )
        for weight in weights
    }
    by_memory = {weight.value.data_ptr(): own for weight, own in watched.items()}
    by_storage = {weight.value.untyped_storage().data_ptr(): own for weight, own in watched.items()}
    generator = torch.Generator().manual_seed(seed)
    names, done = Arguments.of(model).names, 0
    with torch.no_grad(), slow_attention():
        for batch in samples.batches(BATCH_SIZE):
            rows = rows_of(batch)
            filled = filled_positions(zip(batch.names or names, batch.tensors, strict=False))
            draw = Draw(generator, rows / (total or samples.count), filled)
            with Watch(_Sums(by_memory, by_storage, draw).take):
                run_samples(model, batch)
            done += rows
            if on_batch is not None:
                on_batch(done, samples.count)
    return {
        weight: own.sums.moments() if own.sums.count else _reason(weight, own)
        for weight, own in watched.items()
    }


def run_samples(model: nn.Module, samples: Inputs) -> Any:
    """Return what `model` makes of some samples.

    Raises:
        InputError: it does not run on them.
    """
    try:
        return samples.call(model)
    except Exception as error:  # whatever the module raises
        raise InputError(
            f"calibration: {type(model).__name__} does not run on inputs of shape {samples.shapes}: "
            f"{first_line(error)}; give what it was trained on"
        ) from error


@dataclass
class _Watched:
    """What is kept of a weight.

    Attributes:
        sums: over what it is multiplied by.
        layout: of it in memory, see `layout_of`.
        in_part: whether an operator has got something else of its memory than all of it, as it is.
    """

    sums: MomentSums
    layout: Layout
    in_part: bool = False


def _reason(weight: Weight, own: _Watched) -> str:
    """Return why a weight has no moments."""
    if isinstance(weight.module, nn.Embedding):
        return "its rows are looked up, and multiply nothing"
    if own.in_part:
        return "it is multiplied in parts, or turned round"
    return NOT_REACHED


class _Sums:
    """Sums up what weights are multiplied by.

    Args:
        by_memory: address of a weight -> what is kept of it.
        by_storage: of its storage, likewise.
        draw: which vectors are taken.
    """

    def __init__(
        self,
        by_memory: Mapping[int, _Watched],
        by_storage: Mapping[int, _Watched],
        draw: Draw,
    ) -> None:
        self._by_memory, self._by_storage, self._draw = by_memory, by_storage, draw
        self._last: tuple[Tensor, tuple[Any, ...], VectorSums] | None = None

    def take(self, product: Product) -> None:
        """Take in a product's vectors."""
        own = self._by_memory.get(product.weight.data_ptr())
        if own is not None and layout_of(product.weight, product.channels) == own.layout:
            own.sums.add(self._of(product))
        elif (part := self._by_storage.get(product.weight.untyped_storage().data_ptr())) is not None:
            part.in_part = True

    def _of(self, product: Product) -> VectorSums:
        """Sum up what a weight is multiplied by, once for all weights in a row that share it: query, key and
        value."""
        key = (contents(product.operand), product.how)
        if self._last is not None and self._last[1] == key:
            return self._last[2]
        with one_thread():
            found = VectorSums.of(product.vectors(self._draw).float())
        if not product.operand.is_inference():  # else nothing tells whether it was changed in place
            self._last = product.operand, key, found  # kept, so that nothing else is put in its place
        return found
