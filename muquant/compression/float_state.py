"""A float checkpoint in a model that is prepared for quantization-aware training."""

from typing import Any

import torch
from torch import Tensor, nn

from muquant.base.errors import naming
from muquant.quantization.fake_quantize import MuLawFakeQuantize


def take_float_state(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Give the weights of `module` in a state of the float model the names that they have under fake
    quantization, with scale and mu as `prepare_qat` would start them.

    A hook before `load_state_dict`; a state of the prepared model stays as it is.

    Args:
        module: has fake-quantized weights.
        state: is changed in place.
        prefix: of the module's names in it.

    Raises:
        InputError: a weight holds NaN or infinity.
    """
    for name, steps in getattr(module, "parametrizations", {}).items():
        below = f"{prefix}parametrizations.{name}."
        weight = state.get(f"{prefix}{name}")
        if not isinstance(weight, Tensor) or not isinstance(steps[0], MuLawFakeQuantize):
            continue
        if len(steps) > 1 or any(key.startswith(below) for key in state):
            continue  # torch tells what is missing or too much
        state[f"{below}original"] = state.pop(f"{prefix}{name}")
        if weight.shape == steps.original.shape:
            with naming(f"{prefix}{name}"), torch.no_grad():
                steps[0].observe(weight.to(steps.original))
        state.update({f"{below}0.{key}": value for key, value in steps[0].state_dict().items()})
