"""Read an ONNX file from anywhere: checked, its large tensors left where they are."""

from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from muquant.base.errors import InputError, first_line
from muquant_onnx.files.check import check
from muquant_onnx.files.external import locate, sparse_of
from muquant_onnx.files.parse import parse
from muquant_onnx.format.decode_function import DOMAIN
from muquant_onnx.format.metadata import KEY
from muquant_onnx.from_onnx.functions import with_functions_inlined

SMALLEST_OPSET = 13
"""The first whose operators can express the decoder."""
_OVERRIDABLE_FROM = 4
"""The IR version from which an initializer is an input only where callers may set it."""


@dataclass(frozen=True, eq=False)
class SourceGraph:
    """A model that was read.

    Attributes:
        model: its tensors in files are `ir.ExternalTensor` with whole paths.
        nbytes: size of the file and of the external data that it uses.
    """

    model: ir.Model
    nbytes: int


def read_graph(path: Path) -> SourceGraph:
    """Return the model at `path`, functions inlined, nodes in order, its large tensors left in their files.

    Raises:
        InputError: the file is missing, is no whole, valid ONNX model of opset 13 or later, has external data
            that is missing or elsewhere, or was compressed already.
    """
    proto = parse(path)
    _refuse(proto, path)
    nbytes = path.stat().st_size + locate(proto, path)
    check(proto, path)
    try:
        model = with_functions_inlined(proto)
        model.graph.sort()
        for function in model.functions.values():
            function.sort()
    except Exception as error:  # onnx_ir's errors have no common base
        raise InputError(f"{path} is not a valid ONNX model: {first_line(error)}; export it again") from error
    if proto.ir_version < _OVERRIDABLE_FROM:  # there every initializer had to be an input
        inputs = [value for value in model.graph.inputs if value.const_value is None]
        model.graph.inputs.clear()
        model.graph.inputs.extend(inputs)
    return SourceGraph(model, nbytes)


def opset_of(proto: onnx.ModelProto) -> int:
    """Return the version of the standard operators that a model states; 0 where it states none."""
    return max((entry.version for entry in proto.opset_import if not entry.domain), default=0)


def _refuse(proto: onnx.ModelProto, path: Path) -> None:
    """Raise where a model is valid but nothing for us."""
    if any(entry.key == KEY for entry in proto.metadata_props) or any(
        entry.domain == DOMAIN for entry in (*proto.opset_import, *proto.functions)
    ):
        raise InputError(f"{path} was compressed by muquant already; name the float model it was made from")
    opset = opset_of(proto)
    if opset < SMALLEST_OPSET:
        raise InputError(
            f"{path} has opset {opset}, expected {SMALLEST_OPSET} or later; convert it with "
            f"onnx.version_converter.convert_version(model, {SMALLEST_OPSET})"
        )
    for name in sparse_of(proto):
        raise InputError(f"{path} has the sparse tensor {name}; make it dense, then compress the file")
