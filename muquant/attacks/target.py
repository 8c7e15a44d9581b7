"""What is attacked: one contract for PyTorch modules and for functions, such as a runtime session."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import is_dataclass
from itertools import chain
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize

from muquant.attacks.inputs import InputSpace, Values
from muquant.base.errors import InputError, first_line
from muquant.models.calls import evaluation_mode
from muquant.models.logits import classifier_logits, input_dtype

_ARRAYS = (np.ndarray, Tensor, Mapping)

UNIT = InputSpace()
"""Inputs in [0, 1]."""


class Target(Protocol):
    """A classifier of images in [0, 1].

    It may have an attribute `space`, an `InputSpace`: whoever attacks it then gives, and gets, inputs within
    its bounds. And one `abstains`, whether its last output is no class, but says that it does not answer: the
    model is not right about a clean image then, and not fooled by an adversarial one.
    """

    @property
    def differentiable(self) -> bool:
        """Whether `logits` can be differentiated by its input."""

    @property
    def device(self) -> torch.device:
        """Where inputs must lie."""

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits [N, classes], or one more, of inputs float32 [N, ...] in [0, 1]."""

    def ready(self) -> AbstractContextManager[None]:
        """A context in which `logits` is deterministic, such as evaluation mode."""


class TorchTarget:
    """A PyTorch module; attacks run on its device.

    Inputs are cast to the type that the module computes in, and of any result the logits are taken, see
    `classifier_logits`. While a batch is attacked the module is in evaluation mode, parametrized weights such
    as fake-quantized ones are computed once, and on a CPU kernels are laid out for speed. Afterwards
    everything is as it was, the very tensors that hold the weights included.

    Args:
        module: a classifier.
        bounds: of the inputs that are attacked, see `InputSpace`.
        preprocessing: what the module wants done with inputs within the bounds, see `InputSpace`.
        abstains: whether its last output says that it does not answer, see `Target`.

    Raises:
        InputError: bounds or preprocessing cannot be used.
    """

    differentiable = True

    def __init__(
        self,
        module: nn.Module,
        *,
        bounds: tuple[Values, Values] = (0.0, 1.0),
        preprocessing: tuple[Values, Values] | None = None,
        abstains: bool = False,
    ) -> None:
        # DistributedDataParallel would wait for gradients of weights, which no attack computes
        self.module: nn.Module = module.module if isinstance(module, DistributedDataParallel) else module
        self.space = InputSpace(bounds, preprocessing)
        self.abstains = abstains

    @property
    def device(self) -> torch.device:
        """The device of the module's first parameter or buffer; the CPU where it has none."""
        return next(chain(self.module.parameters(), self.module.buffers()), torch.empty(0)).device

    def logits(self, inputs: Tensor) -> Tensor:
        """The logits in what the module returns, which the attack checks to be [N, classes]."""
        output = self.module(self.space(inputs).to(input_dtype(self.module)))
        return classifier_logits(output, len(inputs))

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Evaluation mode, and weights prepared for many passes."""
        with evaluation_mode(self.module), channels_last(self.module), parametrize.cached():
            yield


class CallableTarget:
    """A function of arrays that has no gradients.

    Args:
        function: takes a contiguous float32 array [N, ...] and returns the logits [N, classes], as an array
            or a tensor, or several by order or name, see `classifier_logits`. For an onnxruntime session:
            `CallableTarget(lambda x: session.run(None, {"input": x}))`.
        bounds: as for `TorchTarget`.
        preprocessing: as for `TorchTarget`.
        abstains: as for `TorchTarget`.

    Raises:
        InputError: bounds or preprocessing cannot be used.
    """

    differentiable = False
    device = torch.device("cpu")

    def __init__(
        self,
        function: Callable[[NDArray[np.float32]], Any],
        *,
        bounds: tuple[Values, Values] = (0.0, 1.0),
        preprocessing: tuple[Values, Values] | None = None,
        abstains: bool = False,
    ) -> None:
        self.function = function
        self.space = InputSpace(bounds, preprocessing)
        self.abstains = abstains

    def logits(self, inputs: Tensor) -> Tensor:
        """The logits in what the function returns, as a tensor on the CPU."""
        output = self.function(np.ascontiguousarray(self.space(inputs.detach()).numpy()))
        return classifier_logits(_tensors(output, len(inputs)), len(inputs)).cpu()

    def ready(self) -> AbstractContextManager[None]:
        """Nothing to prepare."""
        return nullcontext()


def abstains(target: Target) -> bool:
    """Whether a target's last output says that it does not answer; no where it does not say."""
    return bool(getattr(target, "abstains", False))


def _tensors(output: Any, count: int) -> Any:
    """Return the same output for `count` images with tensors in the place of arrays and numbers."""
    if isinstance(output, Mapping):
        return {name: _tensors(part, count) for name, part in output.items()}
    if isinstance(output, Tensor) or is_dataclass(output):
        return output
    if isinstance(output, list | tuple) and any(isinstance(part, _ARRAYS) for part in output):
        if len(output) != count or any(np.ndim(part) != 1 for part in output):
            return [_tensors(part, count) for part in output]
        output = np.stack(output)  # a row for each image
    try:
        return torch.as_tensor(output)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"the function's output: expected logits [N, classes] as an array, found {type(output).__name__} "
            f"({first_line(error)}); return such"
        ) from error


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
