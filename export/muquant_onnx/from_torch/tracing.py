"""A module or a program as an ONNX graph, by torch's own exporter."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from muquant.base.errors import InputError, first_line
from muquant.models.calls import Example, Inputs, output_tensors
from muquant_onnx.format.decode_function import OPSET


def trace(module: nn.Module, example: Example) -> ir.Model:
    """Export a module; no notes on source lines.

    The first axis of every input is dynamic, where the module takes more than one example and torch's
    exporter does not find it fixed. Inputs that are given by name keep it, and so do the fields of a result
    that has some, see `output_tensors`.

    Raises:
        InputError: the module does not run on the example, returns no tensor, or cannot be traced.
    """
    given = Inputs.of(example)
    if not given.tensors or not all(value.dim() and len(value) for value in given.tensors):
        raise InputError(
            f"example inputs of shape {given.shapes}; expected tensors whose first axis is the batch"
        )
    module.eval()
    inputs = _batched(module, given)
    collection: Any = torch.export.ShapesCollection  # torch has no types for it
    shapes = collection()
    for value in inputs.tensors:
        if len(value) > 1:
            shapes[value] = {0: torch.export.Dim.AUTO}
    positional, named = ((), inputs.example) if inputs.names else (inputs.example, {})
    names: list[str] = []

    def flatten(_: nn.Module, __: object, output: object) -> tuple[Tensor, ...]:
        tensors = output_tensors(output)
        names[:] = [name for name, _ in tensors]
        return tuple(tensor for _, tensor in tensors)

    hook = module.register_forward_hook(flatten)  # any result can be traced, whether torch knows its type
    try:
        with _quietly():
            program = torch.onnx.export(
                module,
                positional,  # type: ignore[arg-type]  # torch's types know positional inputs only
                kwargs=named,  # type: ignore[arg-type]
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
                optimize=True,
                dynamic_shapes=shapes.dynamic_shapes(module, positional, named),
            )
    except Exception as error:
        raise InputError(
            f"torch could not export {type(module).__name__} for inputs of shape {given.shapes}: "
            f"{_reason(error)}; check that the model runs on the example and that torch.export can trace it"
        ) from error
    finally:
        hook.remove()
    if not names:
        raise InputError(f"{type(module).__name__} returns no tensor; expected at least one; export another")
    assert program is not None
    model = _bare(program.model)
    _name(model, inputs.names, names)
    return model


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
            f"torch could not convert the program to ONNX: {_reason(error)}; export its model otherwise"
        ) from error
    assert converted is not None
    return _bare(converted.model)


def _batched(module: nn.Module, inputs: Inputs) -> Inputs:
    """Return two examples for one, whose number torch would take for a constant; the one if it must be."""
    if all(len(value) > 1 for value in inputs.tensors):
        return inputs
    doubled = inputs.map(lambda value: torch.cat((value, value)) if len(value) == 1 else value)
    try:
        with torch.no_grad():
            doubled.call(module)
    except Exception:  # whatever the module raises
        return inputs
    return doubled


@contextmanager
def _quietly() -> Iterator[None]:
    """Let torch export without deprecations and notes of the exporter, and without the one fused operator of
    torch's attention that has no ONNX form; failures raise."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    notes = logging.getLogger("onnxscript")  # tells of each constant that its optimizer could not fold
    level = notes.level
    notes.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        notes.setLevel(level)
        torch.backends.mha.set_fastpath_enabled(fast_path)


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


def _reason(error: BaseException) -> str:
    """Return the first line of the error at the root; the exporter's own only say at which step it was."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
