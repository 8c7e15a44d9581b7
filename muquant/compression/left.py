"""What stays float in a model some of whose weights are in few bits, and why."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from muquant.compression.computed import Trained, frozen_copy, is_computed
from muquant.compression.layers import Uses, Weight, quantizable_weights, trained_weights
from muquant.models.wrappers import plain_modules


@dataclass(frozen=True)
class LeftFloat:
    """A parameter or buffer that stays float.

    Attributes:
        name: its path in the module, the first where it has several.
        shape: of it.
        nbytes: its bytes as float32.
        reason: why, such as "not picked" or "one axis".
    """

    name: str
    shape: tuple[int, ...]
    nbytes: int
    reason: str


def left_float(
    model: nn.Module,
    weights: Iterable[Weight] | None = None,
    reason: str = "not picked",
    uses: Uses | None = None,
) -> tuple[LeftFloat, ...]:
    """Return what of `model` stays float where `weights` are in few bits, the most bytes first.

    That is every parameter, and every buffer that is saved, of real or complex floating point: biases, norms,
    weights of modules that are none of `WEIGHTS`. What has several names is there once; parameters of lazy
    modules, which have no size yet, are not there.

    Args:
        model: any module.
        weights: those of it that are in few bits; by default those that `prepare_qat` has prepared.
        reason: why its other weights that could be in few bits are not.
        uses: what `find_uses` found in the model; None where it was not run.
    """
    trained: dict[nn.Parameter, Trained] = {}
    if not weights and is_computed(model):
        model, trained = frozen_copy(model)
    weights = trained_weights(model, trained) if weights is None else list(weights)
    names = {owner.name: owner.channels for weight in weights for owner in weight.owners}
    known = {
        owner.stored: weight
        for weight in quantizable_weights(model, {**names, **(uses or {})})
        for owner in weight.owners
    }
    seen = {owner.stored for weight in weights for owner in weight.owners}
    left = []
    for name, value in _floats(model):
        if value not in seen:
            seen.add(value)
            weight = known.get(value)
            why = _reason(value, uses is not None) if weight is None else weight.exact or reason
            nbytes = 4 * value.numel() * (2 if value.is_complex() else 1)
            left.append(LeftFloat(name if weight is None else weight.name, tuple(value.shape), nbytes, why))
    return tuple(sorted(left, key=lambda each: -each.nbytes))


def left_in_state(state: Mapping[str, Tensor]) -> tuple[LeftFloat, ...]:
    """Return what is float in the part of a model's state that is not in few bits, the most bytes first.

    Without the module there is no telling why, but for what has no two axes.
    """
    left = [
        LeftFloat(name, tuple(value.shape), value.nbytes, _few_axes(value) or "float32 in the file")
        for name, value in state.items()
        if value.is_floating_point() or value.is_complex()
    ]
    return tuple(sorted(left, key=lambda each: -each.nbytes))


def _floats(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and saved buffers of `model` with their paths."""
    saved = {value for value in model.state_dict(keep_vars=True).values() if isinstance(value, Tensor)}
    for path, module in plain_modules(model):
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for name, value in own:
            kept = (isinstance(value, nn.Parameter) or value in saved) and not is_lazy(value)
            if kept and (value.is_floating_point() or value.is_complex()):
                yield f"{path}.{name}".lstrip("."), value


def _reason(value: Tensor, watched: bool) -> str:
    """Return why a tensor has no form in few bits."""
    if value.ndim < 2:
        return _few_axes(value)
    if not isinstance(value, nn.Parameter):
        return "a buffer"
    if value.is_complex():
        return "complex numbers"
    if watched:
        return "no product, convolution or embedding takes it"
    return "use unknown: give an example or calibration samples, which show it"


def _few_axes(value: Tensor) -> str:
    return {0: "a scalar", 1: "one axis"}.get(value.ndim, "")
