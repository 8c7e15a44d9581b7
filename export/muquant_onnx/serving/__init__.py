"""Compressed files as sessions of stock onnxruntime: decoded here, in the form that a policy asks for."""

from muquant_onnx.serving.handing import Handed
from muquant_onnx.serving.serve import count_kernels, packed_file, served_file

__all__ = ["Handed", "count_kernels", "packed_file", "served_file"]
