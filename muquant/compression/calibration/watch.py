"""A module is watched: every product that may be one with a weight, as the dispatcher runs it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from muquant.compression.calibration.operators import OPERATORS, Product
from muquant.format.channels import Channels

Layout = tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Looks at every operator that runs.

    Args:
        take: is given each product before it is computed.
        compute: computes an operator that is no view; by default at once.
    """

    def __init__(
        self,
        take: Callable[[Product], None],
        compute: Callable[[Callable[[], Any]], Any] = lambda operator: operator(),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._take, self._compute = take, compute

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Show the operator's products, and run it."""
        kwargs = kwargs or {}
        operator = OPERATORS.get(func)
        if operator is None:  # in inference mode composed operators come whole
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        for product in operator(*args, **kwargs) if operator is not None else ():
            self._take(product)
        run = partial(func, *args, **kwargs)
        return run() if func.is_view else self._compute(run)


def layout_of(weight: Tensor, channels: Channels) -> Layout:
    """Return how a weight lies in memory as a matrix: size and stride of its channels, and of their inputs.

    Axes that follow each other in memory are one, and those of size 1 none.
    """
    shape = tuple(weight.shape)
    matrix = weight.reshape(channels.blocked(shape)).permute(channels.order(shape))
    count = len(channels.blocked_axes)
    axes = list(zip(matrix.shape, matrix.stride(), strict=True))
    return _joined(axes[:count]), _joined(axes[count:])


def _joined(axes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for size, stride in axes:
        if size == 1:
            continue
        if joined and joined[-1][1] == size * stride:
            joined[-1] = joined[-1][0] * size, stride
        else:
            joined.append((size, stride))
    return tuple(joined)


def contents(tensor: Tensor) -> tuple[Any, ...]:
    """Return what says that two tensors are the same numbers, as long as one of them is there; () where
    nothing does."""
    if tensor.is_inference():
        return ()
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor._version


@contextmanager
def slow_attention() -> Iterator[None]:
    """Keep torch from running a whole attention layer as one operator."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
