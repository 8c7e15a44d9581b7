"""Which modules have weights to quantize, and which of them a user picked."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from muquant.base.errors import InputError
from muquant.compression.selection import Override as Override, override_specs, pick
from muquant.format.spec import MuLawSpec

WEIGHTS: dict[type[nn.Module], dict[str, int]] = {
    nn.Linear: {"weight": 0},
    nn.Conv1d: {"weight": 0},
    nn.Conv2d: {"weight": 0},
    nn.Conv3d: {"weight": 0},
    nn.ConvTranspose1d: {"weight": 1},
    nn.ConvTranspose2d: {"weight": 1},
    nn.ConvTranspose3d: {"weight": 1},
    nn.Embedding: {"weight": 0},
    nn.MultiheadAttention: {"in_proj_weight": 0, "q_proj_weight": 0, "k_proj_weight": 0, "v_proj_weight": 0},
}
"""Module type -> its weights and their axis of output channels. Subclasses count as their base. The channel
of a transposed convolution is its place within a group, shared by the groups."""

_BIASES = {"weight": "bias", "in_proj_weight": "in_proj_bias"}


@dataclass(frozen=True, eq=False)
class Weight:
    """A weight of a model.

    Attributes:
        layer: path of the module that owns it, such as "encoder.0.fc1".
        module: that module.
        attribute: the weight's name in it.
        channel_axis: its axis of output channels.
    """

    layer: str
    module: nn.Module
    attribute: str
    channel_axis: int

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
    def bias(self) -> nn.Parameter | None:
        """What the module adds to the weight's product, [channels]; None where it adds nothing."""
        bias = getattr(self.module, _BIASES.get(self.attribute, ""), None)
        return bias if isinstance(bias, nn.Parameter) else None


def quantizable_weights(model: nn.Module) -> list[Weight]:
    """Return the weights of `model` that can be quantized, in module order; shared ones at each owner."""
    return list(_walk(model))


def _walk(model: nn.Module) -> Iterator[Weight]:
    for layer, module in model.named_modules(remove_duplicate=False):
        for attribute, axis in weights_of(module).items():
            if getattr(module, attribute, None) is not None:
                yield Weight(layer, module, attribute, axis)


def weights_of(module: nn.Module) -> dict[str, int]:
    """Return the names and channel axes of the weights that `module` itself owns."""
    for kind, attributes in WEIGHTS.items():
        if isinstance(module, kind):
            return attributes
    return {}


def select_weights(model: nn.Module, layers: str) -> list[Weight]:
    """Return the weights that `layers` picks: "all", "last:K" (of the layers with weights), or a regular
    expression.

    The expression is searched in the path of the layer: "fc" picks fc1 and fc2, "^fc1$" only fc1. A shared
    weight is returned once for each layer picked that owns it.

    Raises:
        InputError: nothing is picked; the message lists the layers there are.
    """
    weights = quantizable_weights(model)
    if not weights:
        kinds = ", ".join(kind.__name__ for kind in WEIGHTS)
        raise InputError(
            f"{type(model).__name__} has no layer with a weight to compress; expected one of {kinds}"
        )
    return [weights[place] for place in pick([(weight.layer,) for weight in weights], layers, "layers")]


def override_formats(
    weights: Sequence[Weight], spec: MuLawSpec, overrides: Mapping[str, Override]
) -> dict[int, MuLawSpec]:
    """Return the formats of those of `weights` that `overrides` picks, by the id of their value.

    Args:
        weights: what is compressed, plain parameters.
        spec: what an override that is only a width changes the width of.
        overrides: which layers, in the forms of `select_weights`, or "=NAME", one weight -> a width or a
            format. The last one that picks a weight counts; a shared weight is picked by any of its layers.

    Raises:
        InputError: an override picks none of `weights`, or its width is out of range.
    """
    labels, names = [(weight.layer,) for weight in weights], [weight.name for weight in weights]
    formats: dict[int, MuLawSpec] = {}
    for places, own in override_specs(labels, spec, overrides, names):
        formats.update({id(weights[place].value): own for place in places})
    return formats


def replace_weight(owners: list[Weight], value: Tensor) -> None:
    """Give all `owners` the weight `value`, as one shared parameter that is not trained."""
    parameter = nn.Parameter(value, requires_grad=False)
    for owner in owners:
        setattr(owner.module, owner.attribute, parameter)
