"""Runs of a network that also tell what some of its modules put out."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle

from muquant.models.calls import Inputs, output_tensors


class Seen(NamedTuple):
    """What a run gave.

    Attributes:
        outputs: all floating-point tensors of the result, with their names.
        hidden: the first floating-point tensor that each watched module put out, by its path; of a module
            that is called several times in a run, the last one. Those that were not called are left out.
    """

    outputs: list[tuple[str, Tensor]]
    hidden: dict[str, Tensor]


class Watch:
    """Runs `module` with other values of some of its parameters, and watches the modules at the paths
    `layers`, until it is closed."""

    def __init__(self, module: nn.Module, layers: Sequence[str]) -> None:
        self._module, self._hidden = module, dict[str, Tensor]()
        self._hooks: list[RemovableHandle] = [
            module.get_submodule(path).register_forward_hook(self._keep(path)) for path in layers
        ]

    def __call__(self, inputs: Inputs, values: Mapping[str, Tensor]) -> Seen:
        """Run the module.

        Args:
            inputs: what it is called with.
            values: of parameters, by their paths; the others are the module's own.
        """
        self._hidden = {}
        result = inputs.call(
            lambda *given, **named: functional_call(self._module, dict(values), given, named)
        )
        hidden, self._hidden = self._hidden, {}
        return Seen(_floating(result), hidden)

    def close(self) -> None:
        """Watch no more."""
        for hook in self._hooks:
            hook.remove()

    def _keep(self, path: str) -> Callable[..., None]:
        def keep(_module: nn.Module, _inputs: object, output: object) -> None:
            for _, tensor in _floating(output)[:1]:
                self._hidden[path] = tensor

        return keep


def _floating(result: object) -> list[tuple[str, Tensor]]:
    return [(name, tensor) for name, tensor in output_tensors(result) if torch.is_floating_point(tensor)]
