"""Compression in place by a configuration, as torchao has it.

compressed = quantize_(model, MuLawConfig(bits=3))    # all weights; the model now computes with 3-bit weights
compressed.save("model.mq")                           # or export_onnx(compressed, "model.onnx", example)

register_with_torchao()
torchao.quantization.quantize_(model, MuLawConfig(bits=3))    # torchao's own function, layer by layer
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from muquant import CompressedModel, MuLawSpec, compress
from muquant.base.errors import InputError
from muquant.compression.calibration import Calibration
from muquant.compression.layers import select_weights
from muquant.format.spec import Grid, Levels
from muquant.models.wrappers import fit_names, misfit
from muquant_integrations.packages import needing

Filter = Callable[[nn.Module, str], bool]
"""A module, and its path in the model -> whether its weights are meant."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MuLawConfig:
    """What torchao calls a configuration: how weights are written in few bits.

    Attributes:
        bits: of a code, 2 to 8; of `quantize_` the average, where not `flat`.
        granularity: "tensor", "channel" or "group:G": which weights share a step.
        mu: companding parameter, 0 to 65536; "auto" searches it for each weight.
        levels: "mid-rise", or "mid-tread" with an exact zero.
        grid: integers on which levels lie: "auto", "int4", "int8" or "int16".
        flat: whether all weights have this width.
        rounding: a name of `ROUNDINGS`, or "tuned"; None for the best that can be had without training.
        calibration: a few samples of what the model will be given, in any form of `Calibration`; None for
            none.

    Raises:
        InputError: one is outside its range.
    """

    bits: int = 3
    granularity: str = "channel"
    mu: float | Literal["auto"] = "auto"
    levels: Levels = "mid-rise"
    grid: Grid = "auto"
    flat: bool = False
    rounding: str | None = None
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        _ = self.spec

    @property
    def spec(self) -> MuLawSpec:
        """The format."""
        return MuLawSpec(self.bits, self.mu, granularity=self.granularity, levels=self.levels, grid=self.grid)


def quantize_(model: nn.Module, config: MuLawConfig, filter_fn: Filter | None = None) -> CompressedModel:
    """Compress the weights of `model` in place: its parameters become what their codes decode to.

    The model stays an ordinary one, of the precision it has; bytes are saved in files. What is returned holds
    the codes, and what they decode to in float32: `save` writes a .mq file of it, `export_onnx` an ONNX file.

    Args:
        model: any module that `muquant.compress` takes, whose weights are parameters.
        config: how.
        filter_fn: picks modules; by default all that have weights.

    Returns:
        What `muquant.compress` returns: a copy of the model, codes and report.

    Raises:
        InputError: the filter picks no weight, a weight is computed by a parametrization or a hook, or
            `muquant.compress` cannot compress the model.
    """
    weights = select_weights(model, "all")
    names = [
        weight.name
        for weight in weights
        if filter_fn is None or any(filter_fn(owner.module, owner.layer) for owner in weight.owners)
    ]
    if not names:
        layers = ", ".join(dict.fromkeys(weight.layer or type(weight.module).__name__ for weight in weights))
        raise InputError(f"filter_fn picks no layer with weights; the layers are {layers}")
    compressed = compress(
        model,
        config.spec,
        flat=config.flat,
        layers=names,
        rounding=config.rounding,
        calibration=config.calibration,
    )
    _put_in_place(compressed, model)
    return compressed


def register_with_torchao() -> None:
    """Let torchao's own `quantize_` take a `MuLawConfig`.

    It shows one module after the other, so each has `bits` bits. `muquant.compress(model, spec, flat=True)`
    finds the codes of the model that results.

    Raises:
        InputError: torchao is missing, or too old to take configurations of others.
    """
    with needing("torchao", "torchao's quantize_"):
        from torchao.core.config import AOBaseConfig
        from torchao.quantization.transform_module import register_quantize_module_handler

    AOBaseConfig.register(MuLawConfig)
    register_quantize_module_handler(MuLawConfig)(_quantize_module)


def _quantize_module(module: nn.Module, config: MuLawConfig) -> nn.Module:
    if config.calibration is not None:
        raise InputError(
            "calibration holds samples of a whole model, and torchao shows one module after the other; call "
            "muquant_integrations.quantize_"
        )
    compressed = compress(module, config.spec, flat=True, rounding=config.rounding, check=False)
    _put_in_place(compressed, module)
    return module


def _put_in_place(compressed: CompressedModel, model: nn.Module) -> None:
    """Give `model` the state of its compressed copy."""
    found: dict[str, Any] = compressed.module.state_dict()
    own: dict[str, Any] = model.state_dict(keep_vars=True)
    called = fit_names(found, own.keys())
    if words := misfit({called[name] for name in found}, own.keys()):
        raise InputError(
            f"parametrizations or hooks compute weights of the model, so they cannot be replaced ({words}); "
            "call muquant.compress, which returns a plain copy"
        )
    with torch.inference_mode():  # parameters that were made there can be changed only there
        for name, value in found.items():
            own[called[name]].copy_(value)
