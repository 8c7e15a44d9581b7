"""Which modules have weights to quantize, who shares one, and which of them a user picked."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from muquant.base.errors import InputError
from muquant.compression.selection import Override, override_specs, pick
from muquant.format.channels import ROWS, Channels
from muquant.format.spec import MuLawSpec
from muquant.models.wrappers import plain_modules


def _rows(_: nn.Module) -> Channels:
    return ROWS


def _transposed_convolution(module: Any) -> Channels:
    """A group and an output in it, of [groups * inputs, outputs, ...]."""
    return Channels((1,), module.groups).simplest((module.in_channels,))


WEIGHTS: dict[type[nn.Module], dict[str, Callable[[nn.Module], Channels]]] = {
    nn.Linear: {"weight": _rows},
    nn.Conv1d: {"weight": _rows},
    nn.Conv2d: {"weight": _rows},
    nn.Conv3d: {"weight": _rows},
    nn.ConvTranspose1d: {"weight": _transposed_convolution},
    nn.ConvTranspose2d: {"weight": _transposed_convolution},
    nn.ConvTranspose3d: {"weight": _transposed_convolution},
    nn.Embedding: {"weight": _rows},
    nn.MultiheadAttention: dict.fromkeys(
        ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"), _rows
    ),
}
"""Module type -> its weights, and what says which of their numbers are one output channel. Subclasses count
as their base."""

_BIASES = {"weight": "bias", "in_proj_weight": "in_proj_bias"}


@dataclass(frozen=True, eq=False)
class Owner:
    """A layer that has a weight, alone or with others.

    Attributes:
        layer: path of the module, such as "encoder.0.fc1".
        module: the module itself.
        attribute: the weight's name in it.
        channels: which of the weights are one output channel.
        place: among the owners of the model, in module order.
    """

    layer: str
    module: nn.Module
    attribute: str
    channels: Channels
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
        if not parametrize.is_parametrized(self.module, self.attribute):
            return self.value
        steps: Any = self.module.parametrizations[self.attribute]  # type: ignore[index]
        stored: Tensor = steps.original if hasattr(steps, "original") else steps.original0
        return stored


@dataclass(frozen=True, eq=False)
class Weight:
    """A weight of a model, and all layers that have it.

    Attributes:
        owners: in module order, at least one; the first gives the weight its name and its axis of channels.
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
    def aliases(self) -> tuple[str, ...]:
        """Its other names: one for each further owner."""
        return tuple(owner.name for owner in self.owners[1:])

    def replace(self, value: Tensor) -> None:
        """Give all owners `value`, as one shared parameter that is not trained."""
        replace_weight(self.owners, value)


def quantizable_weights(model: nn.Module) -> list[Weight]:
    """Return the weights of `model` that can be quantized, in module order, a shared one once."""
    return _shared(model, weight_owners(model))


def weight_owners(model: nn.Module) -> list[Owner]:
    """Return every place of `model` that has a weight that can be quantized, in module order."""
    places = (
        (layer, module, attribute, channels)
        for layer, module in plain_modules(model)
        for attribute, channels in weights_of(module).items()
        if getattr(module, attribute, None) is not None
    )
    return [Owner(*place, number) for number, place in enumerate(places)]


def weights_of(module: nn.Module) -> dict[str, Channels]:
    """Return the names and output channels of the weights that `module` itself owns."""
    for kind, attributes in WEIGHTS.items():
        if isinstance(module, kind):
            return {name: channels_of(module) for name, channels_of in attributes.items()}
    return {}


def select_weights(model: nn.Module, layers: str) -> list[Weight]:
    """Return the weights that `layers` picks: "all", "last:K" (of the layers with weights), or a regular
    expression.

    The expression is searched in the path of the layer: "fc" picks fc1 and fc2, "^fc1$" only fc1. A shared
    weight is picked by any of its layers.

    Raises:
        InputError: nothing is picked; the message lists the layers there are.
    """
    owners = weight_owners(model)
    if not owners:
        kinds = ", ".join(kind.__name__ for kind in WEIGHTS)
        raise InputError(
            f"{type(model).__name__} has no layer with a weight to compress; expected one of {kinds}"
        )
    weight_at = {owner: weight for weight in _shared(model, owners) for owner in weight.owners}
    places = pick([(owner.layer,) for owner in owners], layers, "layers")
    return list(dict.fromkeys(weight_at[owners[place]] for place in places))


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


def _shared(model: nn.Module, owners: Iterable[Owner]) -> list[Weight]:
    """Gather the owners of one tensor."""
    by_tensor: dict[Tensor, list[Owner]] = {}  # a tensor is its own key: equal only to itself
    for owner in owners:
        by_tensor.setdefault(owner.stored, []).append(owner)
    uses = Counter(parameter for _, parameter in model.named_parameters(remove_duplicate=False))
    return [Weight(tuple(each), _own_bias(each, uses)) for each in by_tensor.values()]


def _own_bias(owners: Sequence[Owner], uses: Mapping[nn.Parameter, int]) -> nn.Parameter | None:
    bias = getattr(owners[0].module, _BIASES.get(owners[0].attribute, ""), None)
    return bias if len(owners) == 1 and isinstance(bias, nn.Parameter) and uses[bias] == 1 else None
