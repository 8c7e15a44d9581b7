"""Compressed files as sessions of stock onnxruntime: decoded here, in the form that a policy asks for."""

from muquant_onnx.serving.handing import Handed
from muquant_onnx.serving.serve import packed_file, served_file

__all__ = ["Handed", "packed_file", "served_file"]
