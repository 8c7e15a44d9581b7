"""Which axes of a model's inputs are dynamic: found by torch.export, asked for, and tried."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import sympy
import torch
from torch import Tensor, nn

from muquant.base.errors import InputError
from muquant.models.calls import Inputs, runs
from muquant_onnx.from_torch.asked import Asked, DynamicShapes, Place, Wanted, labels, read_asked
from muquant_onnx.from_torch.tracing import reason, survey

CONSTANT = "torch.export takes its size for a constant"


@dataclass(frozen=True, eq=False)
class Axes:
    """The sizes of a model's inputs.

    Attributes:
        inputs: an example of them.
        labels: what each is called.
        asked: what a caller wants of which axis.
        sizes: dynamic axis -> its size. Axes that have to agree have the same symbols.
        ranges: symbol -> the least and the largest size it may be; None where there is no such.
        fixed: any other axis -> why it is not dynamic.
    """

    inputs: Inputs
    labels: tuple[str, ...]
    asked: Asked
    sizes: dict[Place, sympy.Expr]
    ranges: dict[sympy.Symbol, tuple[int, int | None]]
    fixed: dict[Place, str]

    @property
    def values(self) -> dict[sympy.Symbol, int]:
        """Symbol -> its value in the example."""
        return {
            size: self.size(place) for place, size in self.sizes.items() if isinstance(size, sympy.Symbol)
        }

    def size(self, place: Place) -> int:
        """Return the size of an axis in the example."""
        return int(self.inputs.tensors[place[0]].shape[place[1]])

    def limits(self, place: Place) -> tuple[int, int | None]:
        """Return the least and the largest size that a dynamic axis may have; None where there is no such."""
        size, asked = self.sizes[place], self.asked.get(place)
        if not isinstance(size, sympy.Symbol):
            return 1, None
        least, most = self.ranges.get(size, (1, None))
        least = 1 if least <= 2 else least  # torch.export knows no program for 1 alone
        if asked is not None:
            least = max(least, asked.least)
            most = min((each for each in (most, asked.most) if each is not None), default=None)
        return least, most

    def wanted(self, symbol: sympy.Symbol) -> Wanted | None:
        """Return what is asked of a symbol, if anything."""
        own = [self.asked.get(place) for place, size in self.sizes.items() if size == symbol]
        return next((wanted for wanted in own if wanted is not None), None)

    def counts(self, symbol: sympy.Symbol) -> bool:
        """Whether a symbol is a first axis, the number of examples."""
        return any(axis == 0 and size == symbol for (_, axis), size in self.sizes.items())

    def without(self, symbol: sympy.Symbol, reason: str) -> "Axes":
        """Keep what is behind a symbol as it is in the example.

        Raises:
            InputError: it was asked to be dynamic.
        """
        if self.wanted(symbol) is not None:
            place = next(each for each, size in self.sizes.items() if size == symbol and self.asked.get(each))
            self.refuse(place, reason)
        value = self.values[symbol]
        sizes = {place: size.subs(symbol, value) for place, size in self.sizes.items()}
        gone = {place: reason for place, size in sizes.items() if size.is_number}
        for place in gone:
            if self.asked.get(place) is not None:
                self.refuse(place, reason)
        kept = {place: size for place, size in sizes.items() if place not in gone}
        return replace(self, sizes=kept, fixed=self.fixed | gone)

    def ties(self, symbol: sympy.Symbol) -> "Iterator[Axes]":
        """Yield the same with other axes that change with a symbol: those that lie alike and have its size in
        the example, such as a mask's beside its ids'; or one whose size is the sum of it and another, such as
        that of a mask over what is remembered and what is new. Axes that are asked for are left as they are.
        """
        values = self.values
        places = {axis for (_, axis), size in self.sizes.items() if size == symbol}
        free = [each for each in values if each != symbol and self.wanted(each) is None]
        alike = {size for (_, axis), size in self.sizes.items() if axis in places and size in free}
        same = [each for each in alike if values[each] == values[symbol]]
        if same:
            limits = [self.ranges[each] for each in (symbol, *same) if each in self.ranges]
            least = max((low for low, _ in limits), default=1)
            most = min((high for _, high in limits if high is not None), default=None)
            tied = self._replaced(dict.fromkeys(same, symbol))
            yield replace(tied, ranges=self.ranges | {symbol: (least, most)})
        for whole in free:
            for rest in values:
                if rest not in (symbol, whole) and values[whole] == values[symbol] + values[rest]:
                    yield self._replaced({whole: symbol + rest})

    def _replaced(self, new: Mapping[sympy.Symbol, sympy.Expr]) -> "Axes":
        return replace(self, sizes={place: size.subs(new) for place, size in self.sizes.items()})

    def resized(self, values: dict[sympy.Symbol, int]) -> Inputs | None:
        """Return the example with other sizes, its rows again from the first where there are more; None where
        an axis would have none."""
        tensors: list[Tensor] = list(self.inputs.tensors)
        for (index, axis), size in self.sizes.items():
            count, tensor = int(size.subs(values)), tensors[index]
            if count < 1:
                return None
            tensors[index] = tensor.index_select(axis, torch.arange(count) % tensor.shape[axis])
        return replace(self.inputs, tensors=tuple(tensors))

    def refuse(self, place: Place, reason: str) -> None:
        """Raise an `InputError`: an axis was asked to be dynamic and cannot be."""
        raise InputError(
            f"axis {place[1]} of {self.labels[place[0]]} was asked to be dynamic, but cannot: {reason}; "
            "leave it out of the dynamic axes"
        )


def find_axes(module: nn.Module, given: Inputs, shapes: DynamicShapes | None = None) -> Axes:
    """Find which axes of a module's inputs can be dynamic, as far as torch.export can tell.

    Args:
        module: in evaluation mode.
        given: an example of its inputs.
        shapes: axes that are to be dynamic, or not.

    Raises:
        InputError: there is no example in `given`, `shapes` does not fit it, or the size of an axis that is
            to be dynamic is 0 or cannot be more than 1.
    """
    if not any(tensor.dim() for tensor in given.tensors) or not all(
        len(tensor) for tensor in given.tensors if tensor.dim()
    ):
        raise InputError(
            f"example inputs of shape {given.shapes}; expected tensors whose first axis is the batch"
        )
    asked = read_asked(shapes, module, given)
    inputs = _enlarged(module, given.map(Tensor.detach), asked)  # detached: each an object of its own
    axes = Axes(inputs, labels(module, inputs), asked, {}, {}, {})
    free = []
    for index, tensor in enumerate(inputs.tensors):
        for place in ((index, axis) for axis in range(tensor.dim())):
            if asked.get(place, True) is None:
                axes.fixed[place] = "as asked"
            elif axes.size(place) > 1:
                free.append(place)
            else:
                axes.fixed[place] = f"torch takes a size of {axes.size(place)} for a constant"
                if asked.get(place) is not None:
                    axes.refuse(place, f"{axes.fixed[place]}, and the model does not run on two of it")
    try:
        found = survey(module, inputs, free)
    except Exception as error:  # of torch.export, or whatever the module raises
        why = f"torch.export cannot trace it with other sizes: {reason(error)}"
        return few(replace(axes, sizes=_own(axes, free)), why)
    looped = any(
        isinstance(part, nn.RNNBase) for part in module.modules()
    )  # in ONNX only, not in torch.export
    stiff = [place for place in free if found.sizes[place].is_number]
    tried = [place for place in stiff if looped or asked.get(place) is not None]
    sizes = {place: size for place, size in found.sizes.items() if place not in stiff} | _own(axes, tried)
    fixed = axes.fixed | {place: CONSTANT for place in stiff if place not in tried}
    return _named(replace(axes, sizes=dict(sorted(sizes.items())), ranges=found.ranges, fixed=fixed))


def few(axes: Axes, reason: str) -> Axes:
    """Fix all axes but for the number of examples and those that are asked for."""
    for symbol in axes.values:
        if axes.wanted(symbol) is None and not axes.counts(symbol):
            axes = axes.without(symbol, reason)
    return axes


def _enlarged(module: nn.Module, inputs: Inputs, asked: Asked) -> Inputs:
    """Return the example with two where there is one, along the first axis and along those asked for.

    Torch would take one for a constant. Where the module does not run on two the example stays as it is.
    """
    wanted = {place: each.name for place, each in asked.items() if each is not None}
    first = [(index, 0) for index, tensor in enumerate(inputs.tensors) if tensor.dim()]
    batch = {wanted[place] for place in first if wanted.get(place)}
    named = [place for place, name in wanted.items() if name in batch or place in first]
    others = [[each for each in wanted if wanted[each] == name] for name in dict.fromkeys(wanted.values())]
    for places in ([place for place in first if place not in asked] + named, named, *others):
        tensors = list(inputs.tensors)
        for index, axis in places:
            if tensors[index].shape[axis] == 1:
                tensors[index] = torch.cat((tensors[index], tensors[index]), axis)
        larger = replace(inputs, tensors=tuple(tensors))
        if larger.shapes != inputs.shapes and runs(module, larger):
            inputs = larger
    return inputs


def _own(axes: Axes, places: Iterable[Place]) -> dict[Place, sympy.Expr]:
    """Give each axis a symbol; first axes of one size share theirs, and so do axes of one name."""
    symbols: dict[object, sympy.Symbol] = {}
    sizes = {}
    for index, axis in places:
        wanted = axes.asked.get((index, axis))
        key: object = (index, axis) if axis else axes.size((index, axis))
        if wanted is not None and wanted.name:
            key = wanted.name
        sizes[index, axis] = symbols.setdefault(key, sympy.Dummy(integer=True, positive=True))
    return sizes


def _named(axes: Axes) -> Axes:
    """Let axes of one name have one symbol, and fix what depends on symbols that no axis is by itself."""
    by_name: dict[str, sympy.Symbol] = {}
    merged: dict[sympy.Symbol, sympy.Symbol] = {}
    for place, size in axes.sizes.items():
        wanted = axes.asked.get(place)
        if wanted is not None and wanted.name and isinstance(size, sympy.Symbol):
            merged[size] = merged.get(size, by_name.setdefault(wanted.name, size))
    axes = replace(axes, sizes={place: size.subs(merged) for place, size in axes.sizes.items()})
    for place, size in list(axes.sizes.items()):
        unknown = size.free_symbols - set(axes.values)
        if unknown:
            reason = f"torch.export finds that it has to be {size}"
            if axes.asked.get(place) is not None:
                axes.refuse(place, reason)
            del axes.sizes[place]
            axes.fixed[place] = reason
    return axes
