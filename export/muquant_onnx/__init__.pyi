"""ONNX form of muquant: files with 3-bit weights that stock onnxruntime runs."""

from .from_onnx import (
    CompressReport as CompressReport,
    LeftAlone as LeftAlone,
    WeightReport as WeightReport,
    compress_onnx as compress_onnx,
    plan_onnx as plan_onnx,
)
from .from_program import (
    compress_program as compress_program,
    plan_program as plan_program,
)
from .from_torch import (
    ExportReport as ExportReport,
    export_float as export_float,
    export_onnx as export_onnx,
)
from .lowering import Served as Served
from .reference import decode_file as decode_file
from .sessions import (
    RUNTIME_SETTINGS as RUNTIME_SETTINGS,
    load_session as load_session,
    logits_of as logits_of,
    running_operators as running_operators,
)
from .verification import (
    VerifyReport as VerifyReport,
    verify as verify,
)

__all__: list[str]
