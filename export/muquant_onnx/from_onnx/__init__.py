"""From any ONNX file to one with weights in few bits; edited as a graph, never run."""

from muquant_onnx.from_onnx.compress import compress_onnx
from muquant_onnx.from_onnx.find import FoundWeight, Use, find_weights
from muquant_onnx.from_onnx.plan import plan_onnx
from muquant_onnx.from_onnx.read import read_graph
from muquant_onnx.from_onnx.report import CompressReport, LeftAlone, WeightReport

__all__ = [
    "CompressReport",
    "FoundWeight",
    "LeftAlone",
    "Use",
    "WeightReport",
    "compress_onnx",
    "find_weights",
    "plan_onnx",
    "read_graph",
]
