"""Quantization-aware training: `prepare_qat` for every kind of weight, and QConfigs for torch.ao's own."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize

from muquant.base.errors import InputError, naming
from muquant.compression.calibration.uses import find_uses
from muquant.compression.computed import (
    FAKE,
    FakeQuantizeHook,
    check_later,
    computing_hook,
    computing_steps,
    frozen_copy,
    refresh,
)
from muquant.compression.float_state import take_float_state
from muquant.compression.layers import Owner, override_formats, select_weights
from muquant.compression.selection import Override
from muquant.format.spec import MuLawSpec
from muquant.models.calls import Example
from muquant.models.wrappers import check_sizes
from muquant.quantization.fake_quantize import MuLawFakeQuantize
from muquant.quantization.observers import SearchObserver, WeightObserver
from muquant.quantization.torch_ao import QConfig


@torch.inference_mode(False)
@torch.enable_grad()
def prepare_qat(
    model: nn.Module,
    spec: MuLawSpec | None = None,
    *,
    layers: str = "all",
    overrides: Mapping[str, Override] | None = None,
    observer: type[WeightObserver] = SearchObserver,
    example: Example | None = None,
) -> nn.Module:
    """Put fake quantization on the weights of `model`, in place; returns the model.

    Each weight is observed once, here; from then on its scale and mu are parameters of the model. A weight
    that several layers share has one fake-quant module, at all of them. It is a parametrization. Where
    parametrizations or hooks of torch's (weight_norm, spectral_norm, pruning) compute the weight, it comes
    after them. Further parametrizations may be registered on top; those of several tensors or with a state of
    their own, such as weight_norm and orthogonal, torch takes only as the first.

    `muquant.compress(model)` freezes the result, and `muquant.left_float(model)` says what stays float.
    `model.load_state_dict` also takes states of the float model: scale and mu then start from the weights in
    it.

    Args:
        model: any module with weights that `select_weights` knows; BatchNorm is left as it is. Wrappers such
            as torch.compile's stay, and names are those of the module inside.
        spec: the format, in the decoded domain; 3 bits by default. Steps are learned and stay float32.
        layers: "all", "last:K" or a regular expression, see `select_weights`.
        overrides: layers, in the same forms -> another width or format: {"conv1": 8}. The last one that picks
            a layer counts.
        observer: how scale and mu start.
        example: an input of the model, or several. It is run to see which parameters of modules that are not
            known are weights.

    Raises:
        InputError: `layers` or an override picks no layer, a weight is prepared already, has no size yet, or
            holds NaN or infinity, the model does not run on `example`, or it is wrapped by
            DistributedDataParallel.
    """
    if any(isinstance(module, DistributedDataParallel) for module in model.modules()):
        raise InputError(
            "the model is wrapped by DistributedDataParallel, which would not share what scale and mu learn; "
            "call prepare_qat(model.module), then wrap the result"
        )
    check_sizes(model)
    uses = None if example is None else find_uses(frozen_copy(model)[0], example)
    picked = select_weights(model, layers, uses)
    for weight in picked:
        for owner in weight.owners:
            if is_prepared(owner):
                raise InputError(
                    f"{owner.name} is prepared already; expected a float weight; train it as it is, or pick "
                    "others"
                )
    refresh(model)
    spec = spec or MuLawSpec()
    own = override_formats(picked, spec, overrides or {})
    fakes = {
        weight: MuLawFakeQuantize(own.get(weight, spec), weight.channels, observer).to(weight.value.device)
        for weight in picked
    }
    for weight, fake in fakes.items():
        with naming(weight.name):
            fake.observe(weight.value)
        fake.disable_observer()
    for weight, fake in fakes.items():
        for owner in weight.owners:
            _attach(owner, fake)
    for module in {owner.module for weight in picked for owner in weight.owners}:
        module.register_load_state_dict_pre_hook(take_float_state)  # type: ignore[no-untyped-call]
    return model


def is_prepared(owner: Owner) -> bool:
    """Whether our fake quantization is on a weight, by `prepare_qat` or by torch.ao's own."""
    beside = getattr(owner.module, owner.attribute + FAKE, None)
    steps = computing_steps(owner.module, owner.attribute)
    return any(isinstance(step, MuLawFakeQuantize) for step in (*steps, beside))


def _attach(owner: Owner, fake: MuLawFakeQuantize) -> None:
    """Put fake quantization behind whatever computes a weight."""
    if computing_hook(owner.module, owner.attribute) is None:
        parametrize.register_parametrization(owner.module, owner.attribute, fake)
        steps: Any = owner.module.parametrizations[owner.attribute]  # type: ignore[index]
        steps.register_forward_pre_hook(check_later)
    else:
        owner.module.add_module(owner.attribute + FAKE, fake)
        owner.module.register_forward_pre_hook(FakeQuantizeHook(owner.attribute))


def mulaw_qconfig(
    spec: MuLawSpec | None = None, *, observer: type[WeightObserver] = SearchObserver, learn: bool = False
) -> QConfig:
    """Return a QConfig for torch.ao's own `prepare_qat`, which knows Conv2d, Conv3d and Linear; activations
    stay float.

    Args:
        spec: the format, in the decoded domain.
        observer: how scale and mu are chosen; torch.ao leaves it on, so that they follow the weight at every
            step.
        learn: make scale and mu parameters; then run one forward, and `disable_observer`, before the
            optimizer is built.
    """
    return QConfig(  # type: ignore[no-untyped-call]
        activation=nn.Identity,
        weight=MuLawFakeQuantize.with_args(  # type: ignore[no-untyped-call]
            spec=spec, channel_axis=0, observer=observer, learn=learn
        ),
    )
