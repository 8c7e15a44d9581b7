"""What is attacked: one contract for PyTorch modules and for functions, such as a runtime session."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from muquant.models.calls import evaluation_mode


class Target(Protocol):
    """A classifier of images in [0, 1]."""

    @property
    def differentiable(self) -> bool:
        """Whether `logits` can be differentiated by its input."""

    @property
    def device(self) -> torch.device:
        """Where inputs must lie."""

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits [N, classes] of inputs float32 [N, ...] in [0, 1]."""

    def ready(self) -> AbstractContextManager[None]:
        """A context in which `logits` is deterministic, such as evaluation mode."""


class TorchTarget:
    """A PyTorch module; attacks run on its device.

    While a batch is attacked the module is in evaluation mode, parametrized weights such as fake-quantized
    ones are computed once, and on a CPU kernels are laid out for speed. Afterwards everything is as it was,
    the very tensors that hold the weights included.
    """

    differentiable = True

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @property
    def device(self) -> torch.device:
        """The device of the module's first parameter or buffer; the CPU where it has none."""
        return next(chain(self.module.parameters(), self.module.buffers()), torch.empty(0)).device

    def logits(self, inputs: Tensor) -> Tensor:
        """What the module returns, which the attack checks to be [N, classes]."""
        output: Tensor = self.module(inputs)
        return output

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Evaluation mode, and weights prepared for many passes."""
        with evaluation_mode(self.module), channels_last(self.module), parametrize.cached():
            yield


class CallableTarget:
    """A function of arrays that has no gradients.

    Args:
        function: takes a contiguous float32 array [N, ...] and returns the logits [N, classes], as an array
            or a tensor. For an onnxruntime session:
            `CallableTarget(lambda x: session.run(None, {"input": x})[0])`.
    """

    differentiable = False
    device = torch.device("cpu")

    def __init__(self, function: Callable[[NDArray[np.float32]], NDArray[Any] | Tensor]) -> None:
        self.function = function

    def logits(self, inputs: Tensor) -> Tensor:
        """What the function returns, as a tensor on the CPU."""
        return torch.as_tensor(self.function(np.ascontiguousarray(inputs.detach().numpy()))).cpu()

    def ready(self) -> AbstractContextManager[None]:
        """Nothing to prepare."""
        return nullcontext()


@contextmanager
def channels_last(module: nn.Module) -> Iterator[None]:
    """Lay the kernels of two-dimensional convolutions on a CPU out with their channels last.

    Convolutions and what follows them then work on that layout, in about half the time. The values are the
    same ones, and every parameter and buffer gets the tensor that held them back.
    """
    tensors = chain(module.parameters(), module.buffers())
    kernels = {tensor: tensor.data for tensor in tensors if tensor.dim() == 4 and tensor.device.type == "cpu"}
    try:
        for tensor, data in kernels.items():
            tensor.data = data.to(memory_format=torch.channels_last)
        yield
    finally:
        for tensor, data in kernels.items():
            tensor.data = data
