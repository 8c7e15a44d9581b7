"""A graph in memory, as onnxruntime runs it."""

from pathlib import Path

import onnx_ir as ir
import onnxruntime as ort

from muquant.base.files import temporary_folder
from muquant_onnx.files.write import write_graph
from muquant_onnx.serving.sessions import load_session


def opened(model: ir.Model, setting: str = "default") -> ort.InferenceSession:
    """Open a model by way of a file that is gone again.

    Args:
        model: of any size; its external tensors state whole paths.
        setting: as in `load_session`.
    """
    with temporary_folder() as folder:
        path = Path(folder, "model.onnx")
        write_graph(model, path, Path(folder))
        return load_session(path, setting)
