"""Whether a model is valid: onnxruntime decides."""

from pathlib import Path

import onnx
import onnxruntime as ort

from muquant.base.errors import InputError, first_line
from muquant.base.files import temporary_folder
from muquant_onnx.files.external import tensors_of
from muquant_onnx.files.wire import is_external, range_of, refer


def check(proto: onnx.ModelProto, path: Path) -> None:
    """Raise where neither onnx's checker passes a model nor onnxruntime loads it.

    The checker is faster, and passes operators of other runtimes. It does not know what onnxruntime has of
    its own, and wants shapes and an order that nothing needs: where it objects, onnxruntime decides. Neither
    looks into large tensors, so holes of a file stand for them, and they take no memory.

    Args:
        proto: its external tensors state any location, an offset and a length.
        path: of the model, for messages.

    Raises:
        InputError: the model is not valid.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    with temporary_folder() as folder:
        model, longest = Path(folder, "model.onnx"), 0
        for tensor in tensors_of(copy):
            if is_external(tensor):
                length = range_of(tensor).length
                refer(tensor, "data", 0, length)
                longest = max(longest, length)
        with Path(folder, "data").open("wb") as data:
            data.truncate(longest)
        model.write_bytes(copy.SerializeToString())
        try:
            onnx.checker.check_model(str(model))
        except Exception as error:  # the checker's and protobuf's errors have no common base
            objection = first_line(error)
        else:
            return
        try:
            _load(model)
        except Exception as error:  # onnxruntime's errors have no common base
            refusal = first_line(error).replace(str(model), path.name)
            raise InputError(
                f"{path} is not a valid ONNX model: {objection}; onnxruntime does not load it either: "
                f"{refusal}; export it again"
            ) from error


def _load(model: Path) -> None:
    """Let onnxruntime load a model as it stands, its weights only mapped."""
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what it would say is in the error
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
