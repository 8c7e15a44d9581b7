"""Which parameters of a model are weights, and how they lie in memory: by watching what multiplies by them.

A module of any class may multiply by a parameter of its own, as it is, transposed, a part of it, or a copy in
another shape. So tensors that are such parts or copies are followed from operator to operator. Where one of
them meets an operator that multiplies, the same steps are taken with the places of the parameter's elements
instead of their values: the places say which axes of the parameter are summed over, and the others are its
channels.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from muquant.base.errors import InputError, first_line
from muquant.compression.calibration.watch import slow_attention
from muquant.compression.layers import Uses, weight_owners
from muquant.format.channels import ROWS, Channels
from muquant.models.calls import Example, Inputs, taken_inputs

aten = torch.ops.aten

PRODUCTS: dict[Any, dict[int, tuple[int, ...]]] = {
    aten.mm.default: {0: (1,), 1: (0,)},
    aten.addmm.default: {1: (1,), 2: (0,)},
    aten.bmm.default: {0: (2,), 1: (1,)},
    aten.baddbmm.default: {1: (2,), 2: (1,)},
    aten.addbmm.default: {1: (2,), 2: (1,)},
    aten.mv.default: {0: (1,)},
    aten.addmv.default: {1: (1,)},
    aten.linear.default: {1: (1,)},
    aten.embedding.default: {0: (1,)},
    aten._embedding_bag.default: {0: (1,)},
    aten._embedding_bag_forward_only.default: {0: (1,)},
    aten._trilinear.default: {1: (1, 2)},
    aten._grouped_mm.default: {1: (1,)},
    aten.mkldnn_rnn_layer.default: {1: (1,), 2: (1,)},
    aten.convolution.default: {1: (1, 2, 3, 4)},
}
"""Operator -> its arguments that may be weights, and which of their axes belong to one output channel. Of an
embedding that is a row of the table."""

_PARTS = {
    aten.clone.default,
    aten._to_copy.default,
    aten._unsafe_view.default,
    aten.index.Tensor,
    aten.index_select.default,
    aten.repeat.default,
    aten.unsafe_split.Tensor,
    aten.unsafe_chunk.default,
}
"""Operators besides views that copy parts of their first argument."""
_SCALINGS = {aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar}


def find_uses(model: nn.Module, example: Example) -> Uses:
    """Return the parameters of `model` that an operator multiplies by, by their first names, with their
    channels; those of known layers are left out.

    Of several uses the first counts. Parameters of one axis are none. The model is run once, unless all of
    its parameters are known.

    Args:
        model: in evaluation mode, its weights plain parameters.
        example: its inputs.

    Raises:
        InputError: the model does not run on the example.
    """
    known = {owner.stored for owner in weight_owners(model)}
    names = {
        parameter: name
        for name, parameter in model.named_parameters()
        if parameter not in known
        and not is_lazy(parameter)
        and parameter.dim() > 1
        and parameter.is_floating_point()
    }
    if not names:
        return {}
    inputs, watch = taken_inputs(model, Inputs.of(example)), _Watch(names, known)
    try:
        with torch.no_grad(), slow_attention(), watch:
            inputs.call(model)
    except Exception as error:  # whatever the module raises
        raise InputError(
            f"{type(model).__name__} does not run on inputs of shape {inputs.shapes}: "
            f"{first_line(error)}; give what it was trained on"
        ) from error
    return {name: watch.found[parameter] for parameter, name in names.items() if parameter in watch.found}


class _Part(NamedTuple):
    """A tensor whose elements are some of a parameter's, perhaps scaled.

    Attributes:
        tensor: itself; held so that its identity stays its own.
        parameter: whose elements they are.
        places: computes where they lie in it, int64, in the shape of the tensor.
    """

    tensor: Tensor
    parameter: nn.Parameter
    places: Callable[[], Tensor]


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Looks at every operator that runs, and finds the channels of parameters that are multiplied."""

    def __init__(self, parameters: Any, known: set[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: dict[nn.Parameter, Channels] = {}
        self._parts = {id(each): _Part(each, each, _places_of(each)) for each in parameters}
        self._known = {weight.untyped_storage().data_ptr() for weight in known}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator, and see what it does with parts of parameters."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in PRODUCTS:
            self._multiplied(func, args)
        elif func in _SCALINGS:
            self._scaled(args, result)
        elif func.is_view or func in _PARTS:
            self._cut(func, args, kwargs, result)
        return result

    def _part(self, value: object) -> _Part | None:
        part = self._parts.get(id(value))
        return part if part is not None and part.parameter not in self.found else None

    def _multiplied(self, func: Any, args: tuple[Any, ...]) -> None:
        candidates = PRODUCTS[func]
        for place, axes in candidates.items():
            part = self._part(args[place])
            others = [args[each] for each in candidates if each != place]
            if part is None or any(self._is_known(other) for other in others):
                continue
            groups = 1
            if func is aten.convolution.default and args[6]:  # transposed
                groups, axes = args[8], (0, 2, 3, 4)
            self.found[part.parameter] = _channels(part, axes, groups)
            self._parts = {
                key: each for key, each in self._parts.items() if each.parameter is not part.parameter
            }

    def _is_known(self, value: object) -> bool:
        return isinstance(value, Tensor) and value.untyped_storage().data_ptr() in self._known

    def _scaled(self, args: tuple[Any, ...], result: Tensor) -> None:
        for value in args[:2]:
            part = self._part(value)
            if part is None:
                continue
            rank = part.parameter.dim()
            if result.shape[-rank:] == part.tensor.shape[-rank:]:  # else it scales something else

                def places(part: _Part = part) -> Tensor:
                    return _like(result, part.places().broadcast_to(result.shape))

                self._parts[id(result)] = _Part(result, part.parameter, places)
                return

    def _cut(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        part = self._part(args[0]) if args else None
        if part is None:
            return
        kwargs = {name: value for name, value in kwargs.items() if name != "dtype"}
        for number, each in enumerate(result if isinstance(result, list | tuple) else [result]):

            def places(number: int = number, whole: bool = isinstance(result, Tensor)) -> Tensor:
                made: Any = func(part.places(), *args[1:], **kwargs)
                cut: Tensor = made if whole else made[number]
                return cut

            self._parts[id(each)] = _Part(each, part.parameter, places)


def _places_of(parameter: Tensor) -> Callable[[], Tensor]:
    return lambda: _like(parameter, torch.arange(parameter.numel()).reshape(parameter.shape))


def _like(tensor: Tensor, values: Tensor) -> Tensor:
    """Return int64 `values` laid out in memory as `tensor` is: views that it allows are then allowed."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=torch.int64).copy_(values)


def _channels(part: _Part, axes: tuple[int, ...], groups: int) -> Channels:
    """Return the channels of a parameter, a part of which is summed over `axes`."""
    shape = tuple(part.parameter.shape)
    places = part.places()
    summed = {axis for along in axes if along < places.dim() for axis in _moving(places, along, shape)}
    if not summed:
        summed = {axis for axis, size in enumerate(shape) if size == 1}
    if groups > 1 and places.shape == shape:
        return Channels((1,), groups).simplest(shape)
    own = tuple(axis for axis in range(len(shape)) if axis not in summed)
    return Channels(own) if own else ROWS


def _moving(places: Tensor, along: int, shape: tuple[int, ...]) -> Iterator[int]:
    """Yield the axes of a parameter of `shape` along which one goes by going along an axis of its part."""
    line = places[tuple(slice(None) if axis == along else 0 for axis in range(places.dim()))]
    for axis, at in enumerate(torch.unravel_index(line, shape)):
        if (at != at[:1]).any():
            yield axis
