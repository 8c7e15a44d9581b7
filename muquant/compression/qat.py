"""Quantization-aware training: `prepare_qat` for every kind of weight, and QConfigs for torch.ao's own."""

from collections.abc import Collection, Mapping

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize

from muquant.base.errors import InputError, naming
from muquant.compression.float_state import take_float_state
from muquant.compression.layers import (
    Owner,
    override_formats,
    select_weights,
)
from muquant.compression.selection import Override
from muquant.format.spec import MuLawSpec
from muquant.models.wrappers import check_sizes
from muquant.quantization.fake_quantize import MuLawFakeQuantize
from muquant.quantization.observers import SearchObserver, WeightObserver
from muquant.quantization.torch_ao import QConfig


def prepare_qat(
    model: nn.Module,
    spec: MuLawSpec | None = None,
    *,
    layers: str = "all",
    overrides: Mapping[str, Override] | None = None,
    observer: type[WeightObserver] = SearchObserver,
) -> nn.Module:
    """Put fake quantization on the weights of `model`, in place, as parametrizations; returns the model.

    Each weight is observed once, here; from then on its scale and mu are parameters of the model. A weight
    that several layers share has one fake-quant module, at all of them. `muquant.compress(model)` freezes
    the result, and `muquant.left_float(model)` says what stays float. `model.load_state_dict` also takes
    states of the float model: scale and mu then start from the weights in it.

    Args:
        model: any module with weights that `select_weights` knows; BatchNorm is left as it is. Wrappers such
            as torch.compile's stay, and names are those of the module inside.
        spec: the format, in the decoded domain; 3 bits by default.
        layers: "all", "last:K" or a regular expression, see `select_weights`.
        overrides: layers, in the same forms -> another width or format: {"conv1": 8}. The last one that picks
            a layer counts.
        observer: how scale and mu start.

    Raises:
        InputError: `layers` or an override picks no layer, a weight is prepared or parametrized already,
            has no size yet, or holds NaN or infinity, or the model is wrapped by DistributedDataParallel.
    """
    if any(isinstance(module, DistributedDataParallel) for module in model.modules()):
        raise InputError(
            "the model is wrapped by DistributedDataParallel, which would not share what scale and mu learn; "
            "call prepare_qat(model.module), then wrap the result"
        )
    check_sizes(model)
    picked = select_weights(model, layers)
    for weight in picked:
        for owner in weight.owners:
            _check_plain(owner)
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
            parametrize.register_parametrization(owner.module, owner.attribute, fake)
    for module in {owner.module for weight in picked for owner in weight.owners}:
        module.register_load_state_dict_pre_hook(take_float_state)  # type: ignore[no-untyped-call]
    return model


def is_prepared(owner: Owner) -> bool:
    """Whether our fake quantization is on a weight, by `prepare_qat` or by torch.ao's own."""
    of_torch_ao = getattr(owner.module, f"{owner.attribute}_fake_quant", None)
    return any(isinstance(step, MuLawFakeQuantize) for step in (*_steps(owner), of_torch_ao))


def _steps(owner: Owner) -> list[nn.Module]:
    """Return the parametrizations of a weight."""
    module, name = owner.module, owner.attribute
    return [*module.parametrizations[name]] if parametrize.is_parametrized(module, name) else []  # type: ignore[index]


def _check_plain(owner: Owner) -> None:
    if is_prepared(owner):
        raise InputError(
            f"{owner.name} is prepared already; expected a float weight; train it as it is, or pick others"
        )
    if steps := _steps(owner):
        raise InputError(
            f"{owner.name} is parametrized already, by {', '.join(type(step).__name__ for step in steps)}; "
            "expected a plain weight, on which fake quantization stays alone; make it one by "
            f'torch.nn.utils.parametrize.remove_parametrizations(module, "{owner.attribute}"), '
            "or pick others"
        )


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


def unwrap(model: nn.Module) -> dict[nn.Parameter, MuLawFakeQuantize]:
    """Replace parametrized tensors of `model`, in place, by plain parameters; return our fake-quant modules
    by those that they were on.

    Under our fake quantization that is the float weight, under any other parametrization the value that it
    gives. Torch's own `remove_parametrizations` would also break the model that `model` was copied from:
    copies share the class it edits.

    Raises:
        InputError: a tensor has other parametrizations besides our fake quantization, so that its value is
            not what the fake quantization gives.
    """
    fakes: dict[nn.Parameter, MuLawFakeQuantize] = {}
    for path, module in list(model.named_modules()):
        if parametrize.is_parametrized(module):
            plain = {}
            for name, steps in module.parametrizations.items():
                if any(isinstance(step, MuLawFakeQuantize) for step in steps):
                    _check_alone(f"{path}.{name}".lstrip("."), steps)
                    plain[name] = steps.original
                    fakes[steps.original] = steps[0]
                else:
                    plain[name] = nn.Parameter(getattr(module, name).detach(), requires_grad=False)
            del module.parametrizations
            module.__class__ = type(module).__bases__[0]
            for name, value in plain.items():
                setattr(module, name, value)
        fake = getattr(module, "weight_fake_quant", None)
        if isinstance(fake, MuLawFakeQuantize):  # torch.ao's prepare_qat, behind any parametrization
            fakes[module.weight] = fake
            module.weight_fake_quant = nn.Identity()
    return fakes


def _check_alone(path: str, steps: Collection[nn.Module]) -> None:
    if len(steps) > 1:
        kinds = ", ".join(type(step).__name__ for step in steps if not isinstance(step, MuLawFakeQuantize))
        raise InputError(
            f"{path}: expected fake quantization alone on the weight, found also {kinds or 'another one'}: "
            "the model does not compute with the quantized weight itself; "
            "torch.nn.utils.parametrize.remove_parametrizations makes a float weight of what it computes with"
        )
