"""Files of an opset that cannot express the decoder, raised to the first that can, and looked at again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from muquant.base.errors import InputError, first_line
from muquant.base.files import temporary_folder
from muquant_onnx.files.external import data_files, graphs_of, locate
from muquant_onnx.files.parse import parse
from muquant_onnx.files.write import write_graph
from muquant_onnx.from_onnx.made_up import Answered, made_up
from muquant_onnx.from_onnx.read import SMALLEST_OPSET, opset_of
from muquant_onnx.serving.sessions import load_session

SMALLEST_RAISED = 7
"""The first opset from which onnx's converter knows most operators."""
TOLERANCE = 1e-4
"""How far outputs may be from those before, as a share of the largest: kernels of other versions add up in
another order."""
_EXAMPLES = 2


@dataclass(frozen=True)
class RaisedFile:
    """A file of an opset that can be compressed.

    Attributes:
        path: of it.
        nbytes: size of what it was made from, external data included; None where it is as it was.
        opset: that it had before; None where it is as it was.
        data: the files that hold external data of what it was made from.
    """

    path: Path
    nbytes: int | None = None
    opset: int | None = None
    data: frozenset[Path] = frozenset()

    def check_output(self, output: Path) -> None:
        """Raise `InputError` where writing `output` would destroy a part of the input."""
        if output.resolve() in self.data:
            raise InputError(
                f"cannot write {output}: it holds data of the model that is read; name another file"
            )


@contextmanager
def raised(path: Path) -> Iterator[RaisedFile]:
    """Yield `path`, or, where its opset is below `SMALLEST_OPSET`, a file that is there inside the block and
    means the same in `SMALLEST_OPSET`. Messages speak of `path` still.

    It takes the memory of the whole model, because onnxruntime runs both.

    Raises:
        InputError: the file cannot be read, its opset is below `SMALLEST_RAISED`, it cannot be converted, or
            gives other outputs then.
    """
    proto = parse(path)
    opset, data = opset_of(proto), data_files(proto, path)
    if opset >= SMALLEST_OPSET:
        yield RaisedFile(path, data=data)
        return
    if opset < SMALLEST_RAISED:
        raise InputError(
            f"{path} has opset {opset}, expected {SMALLEST_RAISED} or later; export it again with a later one"
        )
    nbytes = path.stat().st_size + locate(proto, path)
    what = f"{path} has opset {opset}, expected {SMALLEST_OPSET} or later, and"
    examples = list(made_up(load_session(path, "unoptimized"), _EXAMPLES))
    if not examples:
        raise InputError(
            f"{what} onnxruntime runs it on none of the inputs made up to check a conversion; {_WAY_OUT}"
        )
    with temporary_folder() as folder:
        new = Path(folder).resolve() / "model.onnx"
        try:
            _convert(proto, new, what)
            _compare(new, examples, what)
            yield RaisedFile(new, nbytes, opset, data)
        except InputError as error:
            raise InputError(str(error).replace(str(new), str(path))) from error


_WAY_OUT = f"export it again with opset {SMALLEST_OPSET} or later"


def _convert(proto: onnx.ModelProto, new: Path, what: str) -> None:
    stated = {value.name for graph in graphs_of(proto.graph) for value in graph.value_info}
    for graph in graphs_of(proto.graph):
        for node in graph.node:
            if _is_unknown(node, opset_of(proto)):
                node.domain = _ASIDE
    proto.opset_import.add(domain=_ASIDE, version=1)
    try:
        converted = ir.from_proto(onnx.version_converter.convert_version(proto, SMALLEST_OPSET))
        for each in RecursiveGraphIterator(converted.graph):
            if each.domain == _ASIDE:
                each.domain = ""
            for output in each.outputs:
                if output.name not in stated and not output.is_graph_output():
                    output.shape = output.type = None  # runtimes infer what the converter wrote down
        converted.opset_imports.pop(_ASIDE, None)
        write_graph(converted, new, new.parent)
    except Exception as error:  # onnx's and onnx_ir's errors have no common base
        raise InputError(f"{what} onnx cannot convert it: {first_line(error)}; {_WAY_OUT}") from error


_ASIDE = "muquant.aside"
"""The domain, while the converter runs, of operators that onnxruntime has put into ONNX's own."""


def _is_unknown(node: onnx.NodeProto, opset: int) -> bool:
    """Whether a node is of ONNX's domain, and its operator is not.

    LayerNormalization before opset 17 and SimplifiedLayerNormalization, which onnxruntime's optimiser writes,
    are such. They have one version.
    """
    if node.domain not in ("", "ai.onnx"):
        return False
    try:
        onnx.defs.get_schema(node.op_type, opset)
    except onnx.defs.SchemaError:
        return True
    return False


def _compare(new: Path, examples: Sequence[Answered], what: str) -> None:
    """Raise where a model does not give the outputs that it gave."""
    session = load_session(new, "unoptimized")
    for feed, expected in examples:
        try:
            found = session.run(None, feed)
        except Exception as error:  # onnxruntime's errors have no common base
            raise InputError(
                f"{what} does not run once converted: {first_line(error)}; {_WAY_OUT}"
            ) from error
        for output, before, after in zip(session.get_outputs(), expected, found, strict=True):
            if not _same(before, after):
                raise InputError(f"{what} its output {output.name} differs once converted; {_WAY_OUT}")


def _same(before: Any, after: Any) -> bool:
    """Whether two outputs agree; those that are no arrays of numbers are sequences and maps of such."""
    if isinstance(before, list):
        return len(before) == len(after) and all(map(_same, before, after))
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(_same(before[key], after[key]) for key in before)
    one, other = np.asarray(before), np.asarray(after)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not np.issubdtype(one.dtype, np.floating):
        return bool(np.array_equal(one, other))
    one, other = one.astype(np.float64), other.astype(np.float64)
    largest = np.abs(one[np.isfinite(one)]).max(initial=0.0)
    return bool(np.allclose(other, one, rtol=0.0, atol=TOLERANCE * largest, equal_nan=True))
