"""Which modules have weights to quantize, who shares one, and which of them a user picked."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from muquant.base.errors import InputError
from muquant.compression.computed import Trained, prepared_weights
from muquant.compression.selection import Layers, Override, override_specs, pick
from muquant.format.channels import ROWS, Channels
from muquant.format.spec import MuLawSpec
from muquant.models.wrappers import plain_modules
from muquant.quantization.exact import exact_reason


def _rows(_: Any) -> dict[str, Channels]:
    return {"weight": ROWS}


def _transposed_convolution(module: Any) -> dict[str, Channels]:
    """A group and an output in it, of [groups * inputs, outputs, ...]."""
    return {"weight": Channels((1,), module.groups).simplest((module.in_channels,))}


def _projections(_: Any) -> dict[str, Channels]:
    return dict.fromkeys(("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"), ROWS)


def _recurrent(module: Any) -> dict[str, Channels]:
    names = getattr(module, "_flat_weights_names", ("weight_ih", "weight_hh"))
    return {name: ROWS for name in names if name.startswith("weight")}


WEIGHTS: dict[type[nn.Module], Callable[[Any], dict[str, Channels]]] = {
    nn.Linear: _rows,
    nn.Conv1d: _rows,
    nn.Conv2d: _rows,
    nn.Conv3d: _rows,
    nn.ConvTranspose1d: _transposed_convolution,
    nn.ConvTranspose2d: _transposed_convolution,
    nn.ConvTranspose3d: _transposed_convolution,
    nn.Embedding: _rows,
    nn.EmbeddingBag: _rows,
    nn.Bilinear: _rows,
    nn.MultiheadAttention: _projections,
    nn.RNNBase: _recurrent,
    nn.RNNCellBase: _recurrent,
}
"""Module type -> its weights, and which of their numbers are one output channel. Subclasses count as their
base. Weights of modules that are none of these are found by `find_uses`."""

Uses = Mapping[str, Channels]
"""Paths of parameters that operators multiply by -> which of their numbers are one output channel."""

_NOTHING = torch.empty(0)

_BIASES = {"weight": "bias", "in_proj_weight": "in_proj_bias"}


@dataclass(frozen=True, eq=False)
class Owner:
    """A layer that has a weight, alone or with others.

    Attributes:
        layer: path of the module, such as "encoder.0.fc1".
        module: the module itself.
        attribute: the weight's name in it.
        channels: which of the weights are one output channel.
        tied: whether it is one only because another owner has the same tensor.
        place: among the owners of the model, in module order.
    """

    layer: str
    module: nn.Module
    attribute: str
    channels: Channels
    tied: bool
    place: int

    @property
    def name(self) -> str:
        """Path of the weight, such as "encoder.0.fc1.weight"."""
        return f"{self.layer}.{self.attribute}" if self.layer else self.attribute

    @property
    def value(self) -> Tensor:
        """The weight as the module computes with it (through its parametrization, where it has one)."""
        value: Tensor = getattr(self.module, self.attribute)
        return value

    @property
    def stored(self) -> Tensor:
        """The tensor that the module keeps: under a parametrization the one that is trained."""
        return _stored(self.module, self.attribute)


@dataclass(frozen=True, eq=False)
class Weight:
    """A weight of a model, and all layers that have it.

    Attributes:
        owners: at least one, in module order but that tied ones come last; the first gives the weight its
            name and its channels.
        own_bias: what its one owner adds to its product, [channels], if nothing else in the model uses that;
            else None.
    """

    owners: tuple[Owner, ...]
    own_bias: nn.Parameter | None

    @property
    def name(self) -> str:
        """Path of the weight, such as "encoder.0.fc1.weight"."""
        return self.owners[0].name

    @property
    def layer(self) -> str:
        """Path of the module that has it."""
        return self.owners[0].layer

    @property
    def module(self) -> nn.Module:
        """The module that has it."""
        return self.owners[0].module

    @property
    def attribute(self) -> str:
        """Its name in that module."""
        return self.owners[0].attribute

    @property
    def channels(self) -> Channels:
        """Which of its weights are one output channel; where layers differ, of the first."""
        return self.owners[0].channels

    @property
    def value(self) -> Tensor:
        """The weight as its layers compute with it."""
        return self.owners[0].value

    @property
    def exact(self) -> str | None:
        """Why it is no trained weight but a constant, see `exact_reason`; None for a weight."""
        return exact_reason(self.value.detach().float().cpu().numpy())

    @property
    def recurrent(self) -> bool:
        """Whether a layer feeds its error back, step after step."""
        return any(isinstance(owner.module, nn.RNNBase | nn.RNNCellBase) for owner in self.owners)

    @property
    def aliases(self) -> tuple[str, ...]:
        """Its other names: one for each further owner."""
        return tuple(owner.name for owner in self.owners[1:])

    def replace(self, value: Tensor) -> None:
        """Write `value` into the parameter, wherever else the model keeps it; it is no longer trained."""
        self.value.data = value
        self.value.requires_grad_(False)


def quantizable_weights(model: nn.Module, uses: Uses | None = None) -> list[Weight]:
    """Return the weights of `model` that can be quantized, in module order, a shared one once."""
    return _shared(model, weight_owners(model, uses))


def trained_weights(model: nn.Module, trained: Mapping[nn.Parameter, Trained]) -> list[Weight]:
    """Return the weights of `model` that are in `trained`, which `unwrap` found in it."""
    uses = {
        name: trained[value].fake.channels for name, value in model.named_parameters() if value in trained
    }
    return [weight for weight in quantizable_weights(model, uses) if weight.value in trained]


def weight_owners(model: nn.Module, uses: Uses | None = None) -> list[Owner]:
    """Return every place of `model` that has a weight that can be quantized, in module order.

    Besides the weights of `WEIGHTS` these are the parameters in `uses`, what `prepare_qat` prepared, and all
    parameters that are the same tensor as one of them.

    Args:
        model: any module.
        uses: what `find_uses` found in it.
    """
    own = [
        (layer, module, _own_weights(layer, module, uses or {}))
        for layer, module in plain_modules(model)
        if not isinstance(module, parametrize.ParametrizationList)
    ]
    shared: dict[Tensor, Channels] = {}
    for _, module, weights in own:
        for name, channels in weights.items():
            shared.setdefault(_stored(module, name), channels)
    places: list[tuple[str, nn.Module, str, Channels, bool]] = []
    for layer, module, weights in own:
        places += [(layer, module, name, channels, False) for name, channels in weights.items()]
        places += [
            (layer, module, name, shared[value], True)
            for name, value in module._parameters.items()
            if name not in weights and value in shared
        ]
    return [Owner(*place, number) for number, place in enumerate(places)]


def weights_of(module: nn.Module) -> dict[str, Channels]:
    """Return the names and output channels of the weights that a module of a known kind has."""
    for kind, weights in WEIGHTS.items():
        if isinstance(module, kind):
            return weights(module)
    if any(kind.__name__ == "Conv1D" for kind in type(module).__mro__):  # of transformers, [inputs, outputs]
        return {"weight": Channels((1,))} if getattr(module, "weight", _NOTHING).dim() == 2 else {}
    return {}


def select_weights(model: nn.Module, layers: Layers, uses: Uses | None = None) -> list[Weight]:
    """Return the weights that `layers` picks: "all", "last:K" (of the layers with weights), a regular
    expression, or whole names of weights.

    The expression is searched in the path of the layer: "fc" picks fc1 and fc2, "^fc1$" only fc1. A shared
    weight is picked by any of its layers. Constants that are no trained weights, see `exact_reason`, are not
    picked.

    Args:
        model: any module.
        layers: see above.
        uses: what `find_uses` found in it; without it only weights of known kinds of modules can be picked.

    Raises:
        InputError: nothing is picked; the message lists the layers there are.
    """
    owners = weight_owners(model, uses)
    if not owners:
        kinds = ", ".join(kind.__name__ for kind in WEIGHTS)
        other = "a parameter that a product takes" if uses is not None else "an example, which shows others"
        raise InputError(
            f"{type(model).__name__} has no layer with a weight to compress; expected one of {kinds}, or "
            f"{other}"
        )
    weight_at = {owner: weight for weight in _shared(model, owners) for owner in weight.owners}
    places = pick([(owner.layer,) for owner in owners], layers, "layers", [owner.name for owner in owners])
    picked = list(dict.fromkeys(weight_at[owners[place]] for place in places))
    if exact := [weight for weight in picked if weight.exact]:
        if len(exact) == len(picked):
            raise InputError(
                f"layers {layers!r} picks no trained weights but constants, which stay exact, such as "
                f"{exact[0].name} ({exact[0].exact}); pick others"
            )
        picked = [weight for weight in picked if weight not in exact]
    return picked


def override_formats(
    weights: Sequence[Weight], spec: MuLawSpec, overrides: Mapping[str, Override]
) -> dict[Weight, MuLawSpec]:
    """Return the formats of those of `weights` that `overrides` picks.

    Args:
        weights: what is compressed.
        spec: what an override that is only a width changes the width of.
        overrides: which layers, in the forms of `select_weights`, or "=NAME", one weight -> a width or a
            format. The last one that picks a weight counts; a shared weight is picked by any of its layers.

    Raises:
        InputError: an override picks none of `weights`, or its width is out of range.
    """
    pairs = [(owner, weight) for weight in weights for owner in weight.owners]
    pairs.sort(key=lambda pair: pair[0].place)
    labels, names = [(owner.layer,) for owner, _ in pairs], [owner.name for owner, _ in pairs]
    formats: dict[Weight, MuLawSpec] = {}
    for places, own in override_specs(labels, spec, overrides, names):
        formats.update({pairs[place][1]: own for place in places})
    return formats


def replace_weight(owners: Iterable[Owner], value: Tensor) -> None:
    """Give `owners` the weight `value`, as one shared parameter that is not trained."""
    parameter = nn.Parameter(value, requires_grad=False)
    for owner in owners:
        setattr(owner.module, owner.attribute, parameter)


def _own_weights(layer: str, module: nn.Module, uses: Uses) -> dict[str, Channels]:
    """Return the weights that a module has for what it is, and for what is known of its parameters."""
    known = {**prepared_weights(module), **weights_of(module)}
    found = {name: channels for name, channels in known.items() if getattr(module, name, None) is not None}
    for name in module._parameters:
        path = f"{layer}.{name}" if layer else name
        if path in uses:
            found.setdefault(name, uses[path])
    return found


def _stored(module: nn.Module, name: str) -> Tensor:
    """Return the tensor that a module keeps: under a parametrization the one that is trained."""
    value: Tensor
    if parametrize.is_parametrized(module, name):
        steps: Any = module.parametrizations[name]  # type: ignore[index]
        value = steps.original if steps.is_tensor else steps.original0
    else:
        value = getattr(module, name)
    return value


def _shared(model: nn.Module, owners: Iterable[Owner]) -> list[Weight]:
    """Gather the owners of one tensor."""
    by_tensor: dict[Tensor, list[Owner]] = {}  # a tensor is its own key: equal only to itself
    for owner in owners:
        by_tensor.setdefault(owner.stored, []).append(owner)
    uses = Counter(parameter for _, parameter in model.named_parameters(remove_duplicate=False))
    groups = [sorted(each, key=lambda owner: owner.tied) for each in by_tensor.values()]
    return [Weight(tuple(each), _own_bias(each, uses)) for each in groups]


def _own_bias(owners: Sequence[Owner], uses: Mapping[nn.Parameter, int]) -> nn.Parameter | None:
    first, *others = owners
    if others or first.attribute not in weights_of(first.module):  # what others do with theirs is not known
        return None
    bias = getattr(first.module, _BIASES.get(first.attribute, ""), None)
    return bias if isinstance(bias, nn.Parameter) and uses[bias] == 1 else None
