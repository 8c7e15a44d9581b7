"""A module or a program as an ONNX graph, by torch's own exporter."""

import io
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import sympy
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from muquant.base.errors import InputError, first_line
from muquant.models.calls import Inputs, output_tensors
from muquant_onnx.format.decode_function import OPSET
from muquant_onnx.from_torch.asked import Place


@dataclass(frozen=True, eq=False)
class Survey:
    """What torch.export finds out about the sizes of inputs.

    Attributes:
        sizes: axis -> its size, a number where it cannot be another one. Axes whose sizes depend on each
            other have one symbol in common.
        ranges: symbol -> the least size that the program is for, and the largest; None where it has no limit.
    """

    sizes: dict[Place, sympy.Expr]
    ranges: dict[sympy.Symbol, tuple[int, int | None]]


def survey(module: nn.Module, inputs: Inputs, places: Collection[Place]) -> Survey:
    """Find which of the axes in `places` may have another size, and which sizes depend on each other.

    Raises:
        Exception: of any kind, where torch.export cannot trace the module with these axes dynamic.
    """
    arguments, named = _arguments(inputs)
    with _flattened(module), _quietly():
        program = torch.export.export(
            module,
            arguments,
            named,
            dynamic_shapes=_dynamic_shapes(module, arguments, named, places),
            strict=False,
        )
    taken = set(program.graph_signature.user_inputs)
    shapes = [
        node.meta["val"].shape
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in taken
    ]
    sizes = {
        (index, axis): sympy.sympify(getattr(getattr(shapes[index][axis], "node", None), "expr", size))
        for index, tensor in enumerate(inputs.tensors)
        for axis, size in enumerate(tensor.shape)
    }
    ranges = {
        symbol: (
            int(bounds.lower) if isinstance(bounds.lower, sympy.Integer) else 1,
            int(bounds.upper) if isinstance(bounds.upper, sympy.Integer) else None,
        )
        for symbol, bounds in program.range_constraints.items()
        if isinstance(symbol, sympy.Symbol)
    }
    return Survey({place: sizes[place] for place in places}, ranges)


def trace(module: nn.Module, inputs: Inputs, places: Collection[Place]) -> ir.Model:
    """Export a module with the axes in `places` dynamic; no notes on source lines.

    Inputs that are given by name keep it, and so do the fields of a result that has some, see
    `output_tensors`.

    Raises:
        InputError: the module does not run on the example, returns no tensor, or cannot be traced.
    """
    module.eval()
    arguments, named = _arguments(inputs)
    with _flattened(module) as names:
        try:
            with _quietly():
                program = torch.onnx.export(
                    module,
                    arguments,
                    kwargs=named,
                    dynamo=True,
                    opset_version=OPSET,
                    verbose=False,
                    optimize=True,
                    dynamic_shapes=_dynamic_shapes(module, arguments, named, places),
                )
        except Exception as error:
            raise InputError(
                f"torch could not export {type(module).__name__} for inputs of shape {inputs.shapes}: "
                f"{reason(error)}; check that the model runs on the example; where torch.export cannot trace "
                "it, compress the ONNX file that torch.onnx.export(..., dynamo=False) makes of it"
            ) from error
    if not names:
        raise InputError(f"{type(module).__name__} returns no tensor; expected at least one; export another")
    assert program is not None
    model = _bare(program.model)
    _name(model, inputs.names, names)
    return model


def _arguments(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    example = inputs.example
    return ((), dict(example)) if isinstance(example, Mapping) else (tuple(example), {})


def _dynamic_shapes(
    module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], places: Collection[Place]
) -> Any:
    """Return the axes in `places` as torch's exporters take them."""
    collection: Any = torch.export.ShapesCollection  # torch has no types for it
    shapes = collection()
    # what has parts may hold copies of those that it was made of
    for index, tensor in enumerate(tree_leaves((arguments, named))):
        axes = [axis for axis in range(tensor.dim()) if (index, axis) in places]
        if axes:
            shapes[tensor] = dict.fromkeys(axes, torch.export.Dim.AUTO)
    return shapes.dynamic_shapes(module, arguments, named)


@contextmanager
def _flattened(module: nn.Module) -> Iterator[list[str]]:
    """Let a module return its tensors in a tuple, and note their names when it is called: any result can be
    traced then, whether torch knows its type or not."""
    names: list[str] = []

    def flatten(_: nn.Module, __: object, output: object) -> tuple[Tensor, ...]:
        tensors = output_tensors(output)
        names[:] = [name for name, _ in tensors]
        return tuple(tensor for _, tensor in tensors)

    hook = module.register_forward_hook(flatten)
    try:
        yield names
    finally:
        hook.remove()


def trace_program(program: torch.export.ExportedProgram) -> ir.Model:
    """Convert what `torch.export` made; its dynamic axes stay so.

    Raises:
        InputError: an operator of it has no ONNX form.
    """
    try:
        with _quietly():
            converted = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
                optimize=True,
            )
    except Exception as error:
        raise InputError(
            f"torch could not convert the program to ONNX: {reason(error)}; export its model otherwise"
        ) from error
    assert converted is not None
    return _bare(converted.model)


@contextmanager
def _quietly() -> Iterator[None]:
    """Let torch export without deprecations, notes of the exporter and listings of what it could not trace.

    The one fused operator of torch's attention that has no ONNX form is off, and whether a mask is a causal
    one, which a branch on its values finds out, is not asked: the mask says all. Failures raise.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    notes = logging.getLogger("onnxscript")  # tells of each constant that its optimizer could not fold
    level = notes.level
    notes.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()), _causal_as_told():
            warnings.simplefilter("ignore")
            yield
    finally:
        notes.setLevel(level)
        torch.backends.mha.set_fastpath_enabled(fast_path)


@contextmanager
def _causal_as_told() -> Iterator[None]:
    """Let nn.Transformer take a mask for what it is, and for causal only where it was told so."""
    place: Any = torch.nn.modules.transformer
    detect = place._detect_is_causal_mask
    place._detect_is_causal_mask = lambda mask, is_causal=None, size=None: is_causal is True
    try:
        yield
    finally:
        place._detect_is_causal_mask = detect


def _bare(model: ir.Model) -> ir.Model:
    """Remove all notes of the exporter, in place: they tell of the machine."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for output in node.outputs:
            output.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    return model


def _name(model: ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give inputs and outputs these names, where they are not empty; what had one of them gets another.

    An output whose name an input has, or an output before it, gets it with a number behind.
    """
    graph = model.graph
    wanted: dict[str, ir.Value] = {}
    if inputs:
        wanted.update(zip(inputs, graph.inputs, strict=True))
    for name, value in zip(outputs, graph.outputs, strict=True):
        if name:
            wanted[_free(name, wanted)] = value
    values = [
        *graph.inputs,
        *graph.initializers.values(),
        *(each for node in graph.all_nodes() for each in node.outputs),
    ]
    taken = {str(value.name) for value in values} | set(wanted)
    for value in values:
        if value.name in wanted:
            value.name = _free(str(value.name), taken)
            taken.add(value.name)
    for name, value in wanted.items():
        value.name = name


def _free(name: str, taken: "set[str] | dict[str, ir.Value]") -> str:
    """Return `name`, or `name` with the first number behind it that makes it new."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def reason(error: BaseException) -> str:
    """Return the first line of the error at the root; the exporter's own only say at which step it was."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
