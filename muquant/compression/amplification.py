"""How an error grows on its way through a network, and what it is made of, measured on real activations.

The paper (Song, Fallon, Li, 2021) splits the error of a layer W x, whose weight becomes W + dW and whose
input becomes x + dx, into

    delta = (W + dW)(x + dx) - W x = W dx + dW x + dW dx:

the error that came in, the layer's own quantization error, and their product.
"""

import copy
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from muquant.base.errors import InputError
from muquant.compression.artifact import CompressedModel
from muquant.compression.computed import frozen_copy
from muquant.compression.layers import weight_owners
from muquant.compression.sensitivity.calls import linear_part, run_layers


@dataclass(frozen=True)
class LossSplit:
    """The error of a layer's output, and its three terms.

    Each is ||.||_2 over all inputs, divided by ||y||_2 of the float layer's clean outputs y.

    Attributes:
        total: delta.
        carried: W dx, what the errors of earlier layers and of the network's input become.
        quantization: dW x, what this layer's quantization adds to a clean input.
        joint: dW dx.
    """

    total: float
    carried: float
    quantization: float
    joint: float


@dataclass(frozen=True)
class LayerError:
    """How far one layer's output is from the float network's on clean inputs.

    Attributes:
        name: of the layer.
        bits: width of its weight's codes, None for float32.
        perturbed: the float network on perturbed inputs, ||.||_2 as in `LossSplit`.
        quantized: the compressed network on clean inputs.
        both: the compressed network on perturbed inputs.
        gain: the largest ||dW x||_2 / ||x||_2 among the clean inputs x of this layer: what ||dW||_2 bounds.
    """

    name: str
    bits: int | None
    perturbed: float
    quantized: LossSplit
    both: LossSplit
    gain: float


@dataclass(frozen=True)
class Amplification:
    """The outcome of `measure_amplification`.

    Attributes:
        count: inputs that were run.
        layers: in the order in which the network calls them.
        left_out: layers with a weight that are no calls of their own, such as attention's projections.
    """

    count: int
    layers: tuple[LayerError, ...]
    left_out: tuple[str, ...]


def measure_amplification(
    model: nn.Module,
    compressed: CompressedModel,
    inputs: Tensor,
    perturbed: Tensor,
    *,
    batch_size: int = 25,
) -> Amplification:
    """Run the float and the compressed network on clean and on perturbed inputs, and compare every layer.

    Args:
        model: what `compress` was given; it is not changed, and fake quantization is left out.
        compressed: what it became.
        inputs: clean ones [N, ...].
        perturbed: their twins, adversarial or noisy for example, in the same shape.
        batch_size: inputs at a time; the activations of one batch are kept.

    Raises:
        InputError: the inputs are none or differ in shape, the networks do not run on them, take other ways
            through their layers, or are not the same but for the compressed weights.
    """
    if inputs.shape != perturbed.shape or not len(inputs):
        raise InputError(
            f"inputs of shape {tuple(inputs.shape)}, perturbed ones of shape {tuple(perturbed.shape)}; "
            "expected the same, and at least one"
        )
    plain, _ = frozen_copy(model)
    _check_twins(plain, compressed)
    layers = _layers(plain, compressed)
    for start in range(0, len(inputs), batch_size):
        rows = slice(start, start + batch_size)
        _measure(plain, compressed.module, layers, inputs[rows], perturbed[rows])
    called = [layer for layer in layers.values() if layer.first is not None]
    return Amplification(
        len(inputs),
        tuple(layer.error() for layer in sorted(called, key=lambda layer: layer.first or 0)),
        tuple(name for name, layer in layers.items() if layer.first is None),
    )


def _check_twins(plain: nn.Module, compressed: CompressedModel) -> None:
    """Refuse models that differ in more than the values of the compressed weights."""
    names = {*compressed.tensors, *compressed.aliases}
    float_state, state = plain.state_dict(), compressed.module.state_dict()
    for name in {**float_state, **state}:
        one, other = float_state.get(name, torch.empty(0)), state.get(name, torch.empty(0))
        if one.shape != other.shape or (name not in names and not torch.equal(one, other)):
            raise InputError(
                f"{name} is not the same in the float model and in the compressed one; take the model that "
                "was compressed"
            )


@dataclass
class _Sums:
    """Squares of errors, summed over inputs."""

    total: float = 0.0
    carried: float = 0.0
    joint: float = 0.0


@dataclass
class _Layer:
    """A layer of the float network, the error of its weight, its first call, and sums over all calls."""

    name: str
    bits: int | None
    module: nn.Module
    weight: Tensor
    delta: Tensor
    first: int | None = None
    signal: float = 0.0
    perturbed: float = 0.0
    quantization: float = 0.0
    gain: float = 0.0
    quantized: _Sums = field(default_factory=_Sums)
    both: _Sums = field(default_factory=_Sums)

    def clean(self, x: Tensor, y: Tensor, place: int) -> None:
        """Take in a call of the float network with a clean input."""
        if self.first is None:
            self.first = place
        self.signal += _square(y)
        loss = linear_part(self.module, self.delta)(x)
        self.quantization += _square(loss)
        self.gain = max(self.gain, float((_lengths(loss) / _lengths(x).clamp(min=1e-30)).max()))

    def perturb(self, y: Tensor, clean_y: Tensor) -> None:
        """Take in the same call of the float network on a perturbed input."""
        self.perturbed += _square(y - clean_y)

    def compare(self, sums: _Sums, x: Tensor, y: Tensor, clean_x: Tensor, clean_y: Tensor) -> None:
        """Take in the same call of the compressed network."""
        sums.total += _square(y - clean_y)
        sums.carried += _square(self._change(self.weight, x, clean_x))
        sums.joint += _square(self._change(self.delta, x, clean_x))

    def _change(self, weight: Tensor, x: Tensor, clean_x: Tensor) -> Tensor:
        """`weight` times dx; an embedding's indices stand for one-hot vectors."""
        apply = linear_part(self.module, weight)
        return apply(x - clean_x) if x.is_floating_point() else apply(x) - apply(clean_x)

    def error(self) -> LayerError:
        """Divide by the signal."""

        def split(sums: _Sums) -> LossSplit:
            squares = (sums.total, sums.carried, self.quantization, sums.joint)
            return LossSplit(*map(self._relative, squares))

        return LayerError(
            name=self.name,
            bits=self.bits,
            perturbed=self._relative(self.perturbed),
            quantized=split(self.quantized),
            both=split(self.both),
            gain=self.gain,
        )

    def _relative(self, square: float) -> float:
        return math.sqrt(square / max(self.signal, sys.float_info.min))


def _layers(plain: nn.Module, compressed: CompressedModel) -> dict[str, _Layer]:
    """Return the layers that are one linear map each, by name; a module with several names has its first."""
    found: dict[nn.Module, _Layer] = {}
    decoded = compressed.module.state_dict()
    for owner in weight_owners(plain):
        if owner.attribute != "weight":
            continue  # attention's projections
        value = owner.value.detach()
        delta = decoded[owner.name] - value
        stored = compressed.tensors.get(compressed.aliases.get(owner.name, owner.name))
        bits = None if stored is None else stored.spec.bits
        if owner.module not in found:
            module = copy.deepcopy(owner.module)  # stays without the hooks that the network's own gets
            found[owner.module] = _Layer(owner.layer, bits, module, value, delta)
    return {layer.name: layer for layer in found.values()}


def _other_way(name: str, twin: str) -> InputError:
    return InputError(
        f"{name} is called where the float network on clean inputs calls {twin}; expected a network that "
        "takes the same way for all inputs"
    )


OnPair = Callable[[_Layer, Tensor, Tensor, Tensor, Tensor], None]
"""(layer, its input, its output, and those of the float network on clean inputs)"""


def _measure(
    plain: nn.Module, small: nn.Module, layers: Mapping[str, _Layer], inputs: Tensor, perturbed: Tensor
) -> None:
    """Run one batch through the float network and the compressed one, clean and perturbed."""
    clean: list[tuple[str, Tensor, Tensor]] = []

    def note(name: str, x: Tensor, y: Tensor) -> None:
        layers[name].clean(x, y, len(clean))
        clean.append((name, x.clone(), y.clone()))  # what follows may work in place

    def compare(model: nn.Module, batch: Tensor, on_pair: OnPair) -> None:
        expected = iter(clean)

        def pair(name: str, x: Tensor, y: Tensor) -> None:
            twin, clean_x, clean_y = next(expected, ("nothing", x, y))
            if twin != name or clean_y.shape != y.shape:
                raise _other_way(name, twin)
            on_pair(layers[name], x, y, clean_x, clean_y)

        run_layers(model, batch, _modules(model, layers), pair)
        for twin, *_ in expected:
            raise _other_way("nothing", twin)

    run_layers(plain, inputs, _modules(plain, layers), note)
    compare(plain, perturbed, lambda layer, x, y, clean_x, clean_y: layer.perturb(y, clean_y))
    compare(small, inputs, lambda layer, *pair: layer.compare(layer.quantized, *pair))
    compare(small, perturbed, lambda layer, *pair: layer.compare(layer.both, *pair))


def _modules(model: nn.Module, layers: Mapping[str, _Layer]) -> dict[str, nn.Module]:
    return {name: model.get_submodule(name) for name in layers}


def _square(x: Tensor) -> float:
    return float(x.double().square().sum())


def _lengths(x: Tensor) -> Tensor:
    """||.||_2 of each input [N]; indices stand for one-hot vectors."""
    rows = x.flatten(1) if x.dim() > 1 else x[:, None]
    return (
        rows.double().norm(dim=1) if x.is_floating_point() else torch.full((len(rows),), rows.shape[1]).sqrt()
    )
