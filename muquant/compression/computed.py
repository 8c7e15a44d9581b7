"""Weights that are computed before each forward pass, by parametrizations or by hooks, made plain ones."""

import copy
import inspect
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from muquant.base.errors import InputError, first_line
from muquant.format.channels import Channels
from muquant.format.rows import to_rows
from muquant.models.calls import evaluation_mode
from muquant.models.wrappers import plain_copy
from muquant.quantization.fake_quantize import LOG_ZERO, MuLawFakeQuantize

TOLERANCE = 1e-5
"""How far, relative to the largest weight, a weight may be off its levels to count as on them."""

_BY_HOOK = {
    WeightNorm: remove_weight_norm,
    SpectralNorm: remove_spectral_norm,
    prune.BasePruningMethod: prune.remove,
}
"""Torch's hooks that compute a weight -> what makes it a plain parameter."""


@dataclass(frozen=True, eq=False)
class Trained:
    """How a weight was trained for few bits.

    Attributes:
        fake: gives it its levels.
        rounding: "nearest" where those are what the model computed with; "requantized" where another step
            came after fake quantization, whose result lies on no levels.
    """

    fake: MuLawFakeQuantize
    rounding: str = "nearest"


@torch.inference_mode(False)
@torch.no_grad()
def frozen_copy(model: nn.Module) -> tuple[nn.Module, dict[nn.Parameter, Trained]]:
    """Return `plain_copy` of a model with plain parameters for weights that are computed, and how those were
    trained that were prepared for few bits.

    Raises:
        InputError: what computes a weight does not run, or as `plain_copy`.
    """
    module = plain_copy(model)
    return module, unwrap(module)


@torch.no_grad()
def unwrap(model: nn.Module) -> dict[nn.Parameter, Trained]:
    """Replace tensors of `model` that are computed, in place, by plain parameters; return those that were
    prepared for few bits.

    They are what the model, in evaluation mode, computes with; under our fake quantization what goes into it,
    unless more comes after it. Torch's own `remove_parametrizations` would also break the model that `model`
    was copied from: copies share the class it edits.

    Raises:
        InputError: what computes a weight does not run.
    """
    trained: dict[nn.Parameter, Trained] = {}
    shared: dict[tuple[nn.Module | Tensor, ...], nn.Parameter] = {}
    for path, module in list(model.named_modules()):
        ours = _apply_hooks(module)
        if parametrize.is_parametrized(module):
            plain = {}
            for name, steps in module.parametrizations.items():
                key = (*steps, *_originals(steps))
                if key not in shared:
                    try:
                        shared[key], found = _plain(steps)
                    except Exception as error:  # whatever a parametrization raises
                        path = f"{path}.{name}".lstrip(".")
                        raise InputError(_cannot_compute(path, steps, error)) from error
                    if found is not None:
                        trained[shared[key]] = found
                plain[name] = shared[key]
            del module.parametrizations
            module.__class__ = type(module).__bases__[0]
            for name, value in plain.items():
                setattr(module, name, value)
        for name in ours:
            trained[getattr(module, name)] = Trained(getattr(module, name + FAKE))
            delattr(module, name + FAKE)
        fake = getattr(module, f"weight{FAKE}", None)
        if isinstance(fake, MuLawFakeQuantize):  # torch.ao's prepare_qat, behind any parametrization
            trained[module.weight] = Trained(fake)
            module.weight_fake_quant = nn.Identity()
    return trained


FAKE = "_fake_quant"
"""Behind a weight's name: where fake quantization is kept that is no parametrization, as torch.ao has it."""


def is_computed(model: nn.Module) -> bool:
    """Whether something computes a weight of `model` before each forward pass."""
    return any(
        parametrize.is_parametrized(module) or prepared_weights(module) or any(_hooks(module))
        for module in model.modules()
    )


def prepared_weights(module: nn.Module) -> dict[str, Channels]:
    """Return the names and output channels of the weights of a module that have our fake quantization."""
    fakes = [
        (name.removesuffix(FAKE), child) for name, child in module.named_children() if name.endswith(FAKE)
    ]
    lists: Any = module.parametrizations if parametrize.is_parametrized(module) else {}
    fakes += [(name, step) for name, steps in lists.items() for step in steps]
    return {name: fake.channels for name, fake in fakes if isinstance(fake, MuLawFakeQuantize)}


def computing_steps(module: nn.Module, name: str) -> list[nn.Module]:
    """Return the parametrizations of a tensor."""
    return [*module.parametrizations[name]] if parametrize.is_parametrized(module, name) else []  # type: ignore[index]


def computing_hook(module: nn.Module, name: str) -> object | None:
    """Return the hook that computes a tensor before each forward pass, one of torch's; or None."""
    return next((hook for hook, _, own in _hooks(module) if own == name), None)


@torch.no_grad()
def refresh(model: nn.Module) -> None:
    """Let torch's hooks compute their weights now, as in evaluation mode: parameters may have changed since
    the last forward pass."""
    with evaluation_mode(model):
        for module in model.modules():
            for hook, *_ in list(_hooks(module)):
                hook(module, None)


class FakeQuantizeHook:
    """Fake-quantizes a weight that another hook computes, after that.

    Attributes:
        name: of the weight; its fake quantization is the module's child of that name with `FAKE` behind.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: nn.Module, _: object) -> None:
        """Replace the weight that was computed."""
        setattr(module, self.name, getattr(module, self.name + FAKE)(getattr(module, self.name)))


def _hooks(module: nn.Module) -> Iterator[tuple[Any, Any, str]]:
    """Yield torch's hooks that compute a weight, what removes them, and the weight's name."""
    for hook in module._forward_pre_hooks.values():
        for kind, remove in _BY_HOOK.items():
            if isinstance(hook, kind):
                yield hook, remove, getattr(hook, "_tensor_name", None) or hook.name  # type: ignore[attr-defined]


def _apply_hooks(module: nn.Module) -> list[str]:
    """Make plain parameters of what torch's hooks compute, as they compute it in evaluation mode; return the
    names of those that we fake-quantize after that, which is left out."""
    ours = []
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, FakeQuantizeHook):
            del module._forward_pre_hooks[key]
            ours.append(hook.name)
    for _, remove, name in list(_hooks(module)):
        original = module._parameters.get(f"{name}_orig")
        if original is not None:  # others may share it, and pruning writes into it
            module._parameters[f"{name}_orig"] = nn.Parameter(original.clone(), original.requires_grad)
        remove(module, name)
    return ours


def _plain(steps: Any) -> tuple[nn.Parameter, Trained | None]:
    """Return what parametrizations compute, or what goes into our fake quantization if that is the last."""
    ours = [place for place, step in enumerate(steps) if isinstance(step, MuLawFakeQuantize)]
    last = ours[-1] if ours else len(steps)
    before = _through(steps, last)
    if not ours:
        return nn.Parameter(before, requires_grad=False), None
    fake = steps[last]
    if last == len(steps) - 1:
        return before if isinstance(before, nn.Parameter) else nn.Parameter(before), Trained(fake)
    quantized = fake(before)
    weight = quantized
    for step in [*steps][last + 1 :]:
        weight = step(weight)
    trained = _moved(fake, quantized, weight) if weight.shape == quantized.shape else None
    return nn.Parameter(weight), trained


def _through(steps: Any, count: int) -> Tensor:
    """Return what the first `count` steps make of the tensors that are trained."""
    originals = _originals(steps)
    if not count:
        return originals[0]
    value: Tensor = steps[0](*originals)
    for step in [*steps][1:count]:
        value = step(value)
    return value


def _originals(steps: Any) -> list[Tensor]:
    """Return the tensors that are trained under parametrizations."""
    if steps.is_tensor:
        return [steps.original]
    return [getattr(steps, f"original{place}") for place in range(steps.ntensors)]


def _moved(fake: MuLawFakeQuantize, quantized: Tensor, weight: Tensor) -> Trained:
    """Return the fake quantization of `weight`, which later steps made of `quantized`.

    Where they only scale, each step of the levels by a number of its own, nothing is lost; else scale and mu
    are observed anew.
    """
    before, after = (to_rows(value.float(), fake.spec, fake.channels) for value in (quantized, weight))
    across = None if fake.spec.steps.kind == "tensor" else 1
    power = before.square().sum(across)
    ratio = torch.where(power > 0, (before * after).sum(across) / power, 0.0).abs()
    fake = copy.deepcopy(fake)
    scale = fake.scale * ratio.reshape(fake.scale.shape)
    fake.log_scale.copy_(scale.log().clamp(min=LOG_ZERO))
    error = fake.quantize(weight).dequantize() - weight
    if error.abs().max() <= TOLERANCE * weight.abs().max():
        return Trained(fake)
    fake.observe(weight)
    return Trained(fake, "requantized")


_FIRST = (
    "a parametrization of several tensors or with a state of its own, such as weight_norm and orthogonal, "
    "works only as the first of a tensor; register it before prepare_qat, which comes behind it"
)


def _cannot_compute(path: str, steps: Collection[nn.Module], error: BaseException) -> str:
    kinds = ", ".join(type(step).__name__ for step in steps)
    return f"{path}: its parametrizations, {kinds}, do not run: {first_line(error)}; {_FIRST}"


def check_later(steps: Any, _: object) -> None:
    """Refuse parametrizations behind our fake quantization that torch accepts there but cannot run.

    A hook before a list of parametrizations.

    Raises:
        InputError: there is one.
    """
    for step in reversed([*steps]):
        if isinstance(step, MuLawFakeQuantize):
            return
        if len(inspect.signature(step.forward).parameters) > 1 or getattr(step, "base", step) is None:
            raise InputError(f"{type(step).__name__} was registered after prepare_qat: {_FIRST}")
