"""ONNX form of muquant: files with 3-bit weights that stock onnxruntime runs."""

from muquant_onnx.from_onnx import CompressReport, LeftAlone, WeightReport, compress_onnx, plan_onnx
from muquant_onnx.from_program import compress_program, plan_program
from muquant_onnx.from_torch import ExportReport, export_float, export_onnx
from muquant_onnx.lowering import Served
from muquant_onnx.reference import decode_file
from muquant_onnx.sessions import RUNTIME_SETTINGS, load_session, logits_of, running_operators
from muquant_onnx.verify import VerifyReport, verify

__all__ = [
    "RUNTIME_SETTINGS",
    "CompressReport",
    "ExportReport",
    "LeftAlone",
    "Served",
    "VerifyReport",
    "WeightReport",
    "compress_onnx",
    "compress_program",
    "decode_file",
    "export_float",
    "export_onnx",
    "load_session",
    "logits_of",
    "plan_onnx",
    "plan_program",
    "running_operators",
    "verify",
]
