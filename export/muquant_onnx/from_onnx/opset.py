"""Files of an opset that cannot express the decoder, raised to the first that can, and looked at again."""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from muquant.base.errors import InputError, first_line
from muquant_onnx.files.external import locate
from muquant_onnx.files.parse import parse
from muquant_onnx.files.write import write_graph
from muquant_onnx.from_onnx.read import SMALLEST_OPSET, opset_of
from muquant_onnx.serving.sessions import load_session

Array = NDArray[Any]
Example = tuple[Mapping[str, Array], list[Any]]
"""Inputs by name, and the outputs."""

SMALLEST_RAISED = 7
"""The first opset from which onnx's converter knows most operators."""
TOLERANCE = 1e-4
"""How far outputs may be from those before, as a share of the largest: kernels of other versions add up in
another order."""
_SIZES = ((2, 2), (1, 1), (2, 8), (2, 32), (2, 64), (1, 224), (8, 8), (32, 32))
"""What is tried, in this order, for sizes that a graph leaves open: the first of an input, and others."""
_MOST = 1 << 24
"""Numbers that an input may have."""
_EXAMPLES = 2


@dataclass(frozen=True)
class RaisedFile:
    """A file of an opset that can be compressed.

    Attributes:
        path: of it.
        nbytes: size of what it was made from, external data included; None where it is as it was.
        opset: that it had before; None where it is as it was.
    """

    path: Path
    nbytes: int | None = None
    opset: int | None = None


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
    opset = opset_of(proto)
    if opset >= SMALLEST_OPSET:
        yield RaisedFile(path)
        return
    if opset < SMALLEST_RAISED:
        raise InputError(
            f"{path} has opset {opset}, expected {SMALLEST_RAISED} or later; export it again with a later one"
        )
    nbytes = path.stat().st_size + locate(proto, path)
    what = f"{path} has opset {opset}, expected {SMALLEST_OPSET} or later, and"
    examples = _examples(path)
    if not examples:
        raise InputError(
            f"{what} onnxruntime runs it on none of the inputs made up to check a conversion; {_WAY_OUT}"
        )
    with tempfile.TemporaryDirectory() as folder:
        new = Path(folder).resolve() / "model.onnx"
        try:
            _convert(proto, new, what)
            _compare(new, examples, what)
            yield RaisedFile(new, nbytes, opset)
        except InputError as error:
            raise InputError(str(error).replace(str(new), str(path))) from error


_WAY_OUT = f"export it again with opset {SMALLEST_OPSET} or later"


def _examples(path: Path) -> list[Example]:
    """Return inputs that a model runs on, and its outputs."""
    session = load_session(path, "unoptimized")
    quiet = ort.RunOptions()
    quiet.log_severity_level = 4  # a size that does not fit is no news
    for sizes in _SIZES:
        random = np.random.default_rng(0)
        try:
            feeds = [_made_up(session, sizes, random) for _ in range(_EXAMPLES)]
            return [(feed, session.run(None, feed, quiet)) for feed in feeds]
        except Exception:  # noqa: S112  # onnxruntime's errors have no common base
            continue
    return []


def _convert(proto: onnx.ModelProto, new: Path, what: str) -> None:
    try:
        converted = onnx.version_converter.convert_version(proto, SMALLEST_OPSET)
        write_graph(ir.from_proto(converted), new, new.parent)
    except Exception as error:  # onnx's and onnx_ir's errors have no common base
        raise InputError(f"{what} onnx cannot convert it: {first_line(error)}; {_WAY_OUT}") from error


def _compare(new: Path, examples: Sequence[Example], what: str) -> None:
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


def _made_up(
    session: ort.InferenceSession, sizes: tuple[int, int], random: np.random.Generator
) -> dict[str, Array]:
    """Return an array for each input: normal floats, and integers that are 0 or 1, as indices may be."""
    feed = {}
    for given in session.get_inputs():
        open_sizes = [sizes[min(axis, 1)] for axis in range(len(given.shape))]
        stated = [size if isinstance(size, int) and size >= 0 else -1 for size in given.shape]
        shape = [free if size < 0 else size for size, free in zip(stated, open_sizes, strict=True)]
        if math.prod(shape) > _MOST:
            raise ValueError(shape)
        dtype = np.dtype(_TYPES[given.type])
        is_float = np.issubdtype(dtype, np.floating)
        values = random.standard_normal(shape) if is_float else random.integers(2, size=shape)
        feed[given.name] = values.astype(dtype)
    return feed


_TYPES = {
    "tensor(bool)": "bool",
    "tensor(double)": "float64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


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
