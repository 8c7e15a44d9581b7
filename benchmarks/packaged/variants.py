"""Files that onnxruntime's own tools write of others, as people ship them."""

import importlib
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime as ort


def float16(source: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """What its float16 converter writes, inputs and outputs in float16 too."""

    def write(folder: Path) -> Path:
        path = folder / "float16.onnx"
        library = importlib.import_module("onnxruntime.transformers.float16")
        onnx.save_model(library.convert_float_to_float16(onnx.load(source(folder))), path)
        return path

    return write


def optimised(source: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """What its optimiser writes at the level "extended", with operators that only it knows."""

    def write(folder: Path) -> Path:
        path, options = folder / "optimised.onnx", ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath, options.log_severity_level = str(path), 3
        ort.InferenceSession(str(source(folder)), options, providers=["CPUExecutionProvider"])
        return path

    return write
