"""Layers at work: what they are called with inside a network, and what they make of it without their bias."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from muquant.base.errors import InputError, first_line
from muquant.models.calls import Example, Inputs, taken_inputs

OnCall = Callable[[str, Tensor, Tensor], None]
"""(name of the layer, its input, its output), for each call of it; neither may be kept without a copy."""


def run_layers(model: nn.Module, example: Example, layers: Mapping[str, nn.Module], on_call: OnCall) -> None:
    """Run `model` once, without gradients, and report every call of `layers`, in their order.

    Args:
        model: in evaluation mode.
        example: its inputs.
        layers: name -> module of `model` that takes one tensor and returns one.
        on_call: called after each call of one of them.

    Raises:
        InputError: the model does not run on the inputs.
    """

    def hook(name: str) -> Callable[..., None]:
        def report(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
            on_call(name, arguments[0] if arguments else named["input"], output)

        return report

    inputs = taken_inputs(model, Inputs.of(example))
    hooks = [module.register_forward_hook(hook(name), with_kwargs=True) for name, module in layers.items()]
    try:
        with torch.no_grad():
            inputs.call(model)
    except InputError:
        raise
    except Exception as error:  # whatever the module raises
        raise InputError(
            f"{type(model).__name__} does not run on inputs of shape {inputs.shapes}: "
            f"{first_line(error)}; give what it was trained on"
        ) from error
    finally:
        for each in hooks:
            each.remove()


def linear_part(module: nn.Module, weight: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what `module` computes with `weight` in place of its own and without its bias.

    Args:
        module: linear, embedding or convolution, whose subclass computes what its base does; without hooks.
        weight: in the shape of the module's; its type is that of the inputs.
    """
    state = {"weight": weight}
    bias = getattr(module, "bias", None)
    if bias is not None:
        state["bias"] = torch.zeros_like(bias, dtype=weight.dtype)
    return lambda x: functional_call(module, state, x)
