"""ONNX form of muquant: files with 3-bit weights that stock onnxruntime runs."""

from .from_onnx import (
    CompressReport as CompressReport,
    LeftAlone as LeftAlone,
    WeightReport as WeightReport,
    compress_onnx as compress_onnx,
    plan_onnx as plan_onnx,
)
from .from_torch.export import (
    ExportReport as ExportReport,
    export_float as export_float,
    export_onnx as export_onnx,
)
from .from_torch.names import InputAxis as InputAxis
from .from_torch.program import (
    compress_program as compress_program,
    plan_program as plan_program,
)
from .lowering.lower import Served as Served
from .serving.classifier import logits_of as logits_of
from .serving.read import decode_file as decode_file
from .serving.sessions import (
    RUNTIME_SETTINGS as RUNTIME_SETTINGS,
    load_session as load_session,
    running_operators as running_operators,
)
from .verification.verify import (
    VerifyReport as VerifyReport,
    verify as verify,
)
from .verification.verify_onnx import verify_onnx as verify_onnx

__all__: list[str]
