"""ONNX form of muquant: files with 3-bit weights that stock onnxruntime runs."""

from muquant_onnx.from_torch import ExportReport, export_float, export_onnx
from muquant_onnx.lowering import Served

__all__ = ["ExportReport", "Served", "export_float", "export_onnx"]
