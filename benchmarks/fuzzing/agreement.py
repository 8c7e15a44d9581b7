"""What a file answers: by onnxruntime alone, node by node, and as we open it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

Array = NDArray[Any]
_SIZE = 8
"""Of axes that are dynamic."""
_MOST = 10**6
"""Numbers of an input."""
_LARGEST = 1e30
"""Above it sums in another order overflow."""
_OUTLIER = 1e4
"""Times the median weight of a matrix: 8 bits from zero to there hold no other weight of it."""


class DisagreementError(Exception):
    """A file means one thing to onnxruntime and another to us."""


@dataclass(frozen=True)
class Answer:
    """Outputs for inputs.

    Attributes:
        feed: by input.
        outputs: by output; what is no array of numbers is left out.
    """

    feed: Mapping[str, Array]
    outputs: Mapping[str, Array]


def plain_answer(path: Path) -> Answer | None:
    """What onnxruntime alone makes of a file, unoptimised; None where it does not load or run it."""
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feed = {each.name: _input(each) for each in session.get_inputs()}
        return Answer(feed, answers(session, feed))
    except Exception:  # onnxruntime's errors have no common base
        return None


def answers(session: ort.InferenceSession, feed: Mapping[str, Array]) -> dict[str, Array]:
    """Run a session, in silence."""
    quiet = ort.RunOptions()
    quiet.log_severity_level = 4
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, dict(feed), quiet)
    return {
        name: output
        for name, output in zip(names, found, strict=True)
        if isinstance(output, np.ndarray) and output.dtype.kind in "fiub"
    }


def compare(wanted: Mapping[str, Array], found: Mapping[str, Array], tolerance: float, what: str) -> None:
    """Raise `DisagreementError` where outputs differ by more than a share of their largest number."""
    for name, output in wanted.items():
        if name not in found or found[name].shape != output.shape:
            raise DisagreementError(f"{what}: {name!r} has another shape, or is not there")
        one, other = (each.astype(np.float64).reshape(-1) for each in (output, found[name]))
        if not one.size or (_overflows(one) and _overflows(other)):
            continue
        if _overflows(one) or _overflows(other):
            raise DisagreementError(f"{what}: {name!r} is not finite on one side only")
        apart, largest = float(np.abs(one - other).max()), float(np.abs(one).max())
        if apart > tolerance * max(largest, float(np.finfo(np.float32).tiny)):
            raise DisagreementError(f"{what}: {name!r} differs by {apart:.3g} of {largest:.3g}")


def has_outliers(path: Path) -> bool:
    """Whether a weight is so large that 8 bits hold nothing else beside it.

    The float network may multiply it by zero, so that its answers say nothing of it.
    """
    for tensor in onnx.load(path).graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = np.abs(onnx.numpy_helper.to_array(tensor, str(path.parent)))
            if values.ndim > 1 and values.size and values.max() > _OUTLIER * np.median(values):
                return True
    return False


def _overflows(values: Array) -> bool:
    return not bool((np.abs(values) < _LARGEST).all())  # which NaN is not, either


def _input(given: Any) -> Array:
    sizes = [size if isinstance(size, int) and size > 0 else _SIZE for size in given.shape]
    if math.prod(sizes) > _MOST:
        raise ValueError(sizes)
    if given.type == "tensor(int64)":
        return np.arange(np.prod(sizes), dtype=np.int64).reshape(sizes) % _SIZE
    if given.type != "tensor(float)":
        raise ValueError(given.type)
    drawn = np.random.default_rng(0).standard_normal(sizes)
    return drawn.astype(np.float32)
