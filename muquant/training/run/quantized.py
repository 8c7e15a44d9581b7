"""Quantization-aware training in the loop: when it begins, how often it decodes, what it adds to the loss."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from muquant.compression.layers import quantizable_weights
from muquant.compression.qat import prepare_qat
from muquant.format.rows import to_matrix
from muquant.quantization.fake_quantize import MuLawFakeQuantize
from muquant.training.options.qat import QatOptions


class Quantization:
    """Fake quantization of a model, from some step of a run on.

    Args:
        model: is prepared in place.
        options: what for.
        steps: of the run.

    Attributes:
        first: the first step with fake quantization; those before are trained in float.
    """

    def __init__(self, model: nn.Module, options: QatOptions, steps: int) -> None:
        prepare(model, options)
        self.first = int(options.start * steps)
        self._quantized = quantized_weights(model)
        for weight in self._quantized:
            weight.fake.disable_fake_quant()

    def before(self, step: int) -> None:
        """Begin at the first step: search scale and mu for the weights as they have become."""
        if step != self.first:
            return
        for weight in self._quantized:
            weight.fake.observe(weight.original)
            weight.fake.enable_fake_quant()


def prepare(model: nn.Module, options: QatOptions) -> nn.Module:
    """Put fake quantization as in `options` on `model`, in place; returns the model."""
    return prepare_qat(model, options.spec, layers=options.layers, overrides=dict(options.overrides))


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """A fake-quantized weight of a model.

    Attributes:
        module: the layer that owns it.
        name: its name there.
    """

    module: nn.Module
    name: str

    @property
    def _steps(self) -> parametrize.ParametrizationList:
        return self.module.parametrizations[self.name]  # type: ignore[index,return-value]

    @property
    def fake(self) -> MuLawFakeQuantize:
        """The module that decodes it."""
        return self._steps[0]  # type: ignore[return-value]

    @property
    def original(self) -> Tensor:
        """The float weight that is trained."""
        return self._steps.original

    @property
    def decoded(self) -> Tensor:
        """The weight that the layer computes with."""
        return getattr(self.module, self.name)  # type: ignore[no-any-return]


def quantized_weights(model: nn.Module) -> list[QuantizedWeight]:
    """The fake-quantized weights of `model`; one that layers share at each of them."""
    weights = (
        QuantizedWeight(module, name)
        for module in model.modules()
        if parametrize.is_parametrized(module)
        for name in module.parametrizations  # type: ignore[union-attr]
    )
    return [weight for weight in weights if isinstance(weight.fake, MuLawFakeQuantize)]


@contextmanager
def decoded_once(model: nn.Module) -> Iterator[None]:
    """Decode every fake-quantized weight now, and use that however often the model runs inside.

    An attack of K steps would decode K times otherwise. With gradients enabled here, a loss that is computed
    inside reaches the weights through the one decoding; attacks ask for gradients of images alone, which do
    not pass it.
    """
    with parametrize.cached():
        for weight in quantized_weights(model):
            _ = weight.decoded
        yield


def penalty(model: nn.Module, options: QatOptions) -> Tensor:
    """What the options "lipschitz" and "error" add to the loss, a scalar."""
    total = torch.zeros((), device=next(model.parameters()).device)
    if options.lipschitz:
        matrices = [to_matrix(weight.value, weight.channels) for weight in quantizable_weights(model)]
        total = total + options.lipschitz * torch.stack([expansion(matrix) for matrix in matrices]).sum()
    if options.error:
        errors = [relative_error(weight.original, weight.decoded) for weight in quantized_weights(model)]
        total = total + options.error * torch.stack(errors).sum()
    return total


def expansion(matrix: Tensor) -> Tensor:
    """||W W^T - I||_F^2 of a matrix, or ||W^T W - I||_F^2 where that product is the smaller one."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return (wide @ wide.T - torch.eye(len(wide), device=wide.device)).square().sum()


def relative_error(weight: Tensor, decoded: Tensor) -> Tensor:
    """||W - Q(W)||_F^2 / ||W||_F^2, with Q(W) and the divisor held fixed."""
    power = weight.detach().square().sum().clamp(min=1e-12)
    return (weight - decoded.detach()).square().sum() / power
