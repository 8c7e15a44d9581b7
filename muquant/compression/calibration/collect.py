"""Run a model on samples, and keep the moments of what its weights are multiplied by."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from muquant.base.errors import InputError, first_line
from muquant.compression.calibration.operators import OPERATORS, Product
from muquant.compression.layers import Weight
from muquant.format.rows import to_matrix
from muquant.models.calls import Inputs
from muquant.quantization.moments import Moments, MomentSums

BATCH_SIZE = 32


def collect_moments(
    model: nn.Module,
    weights: Sequence[Weight],
    inputs: Inputs,
    *,
    seed: int = 0,
    on_batch: Callable[[int, int], None] | None = None,
) -> dict[Weight, Moments]:
    """Return the moments of the inputs of `weights`.

    A weight is missing where it is never multiplied as a whole: an embedding, a transposed convolution, an
    attention whose query, key and value differ, a layer that these inputs do not reach. Of a square weight
    that is used transposed too, only the uses as it is count.

    Args:
        model: in evaluation mode, on the CPU.
        weights: of `model`.
        inputs: samples [N, ...], run `BATCH_SIZE` at a time.
        seed: which patches are drawn from large images.
        on_batch: called after each batch with the samples that were run, and their number.

    Raises:
        InputError: the model does not run on the inputs, or makes NaN, infinity or too large numbers of them.
    """
    watched = {
        weight: _Watched(
            MomentSums(weight.name, to_matrix(weight.value, weight.channels).shape),
            _channel_stride(weight),
        )
        for weight in weights
    }
    by_memory = {weight.value.data_ptr(): own for weight, own in watched.items()}
    generator = torch.Generator().manual_seed(seed)
    done = 0
    with torch.no_grad(), _slow_attention():
        for batch in inputs.batches(BATCH_SIZE):
            with _Watch(by_memory, generator):
                run_samples(model, batch)
            done += batch.count
            if on_batch is not None:
                on_batch(done, inputs.count)
    return {weight: own.sums.moments() for weight, own in watched.items() if own.sums.count}


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


def _channel_stride(weight: Weight) -> int:
    value, channels = weight.value, weight.channels
    return value.reshape(channels.blocked(tuple(value.shape))).stride(channels.blocked_axes[-1])


class _Watched(NamedTuple):
    """Sums for a weight, and how far apart its channels are in memory."""

    sums: MomentSums
    stride: int


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Looks at every operator that runs."""

    def __init__(self, by_memory: Mapping[int, _Watched], generator: torch.Generator) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._by_memory, self._generator = by_memory, generator

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Take in the operator's vectors, and run it."""
        kwargs = kwargs or {}
        operator = OPERATORS.get(func)
        product = None if operator is None else operator(*args, **kwargs)
        if product is not None:
            self._take(product)
        return func(*args, **kwargs)

    def _take(self, product: Product) -> None:
        own = self._by_memory.get(product.weight.data_ptr())
        if own is None:
            return
        vectors = product.vectors(self._generator).float()
        axis = 1 if product.transposed else 0
        shape = (product.weight.shape[axis], vectors.shape[-1])
        alike = product.weight.stride(axis) == own.stride or 1 in shape  # else it is turned round
        if shape == own.sums.shape and alike:  # else a part of it, or another view of its memory
            own.sums.add(vectors)


@contextmanager
def _slow_attention() -> Iterator[None]:
    """Keep torch from running a whole attention layer as one operator."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
