"""ONNX form of muquant: files with 3-bit weights that stock onnxruntime runs."""

from .from_onnx import (
    CompressReport as CompressReport,
)
from .from_onnx import (
    LeftAlone as LeftAlone,
)
from .from_onnx import (
    WeightReport as WeightReport,
)
from .from_onnx import (
    compress_onnx as compress_onnx,
)
from .from_onnx import (
    plan_onnx as plan_onnx,
)
from .from_program import (
    compress_program as compress_program,
)
from .from_program import (
    plan_program as plan_program,
)
from .from_torch import (
    ExportReport as ExportReport,
)
from .from_torch import (
    export_float as export_float,
)
from .from_torch import (
    export_onnx as export_onnx,
)
from .lowering import Served as Served
from .reference import decode_file as decode_file
from .sessions import (
    RUNTIME_SETTINGS as RUNTIME_SETTINGS,
)
from .sessions import (
    load_session as load_session,
)
from .sessions import (
    logits_of as logits_of,
)
from .sessions import (
    running_operators as running_operators,
)
from .verification import (
    VerifyReport as VerifyReport,
)
from .verification import (
    verify as verify,
)

__all__: list[str]
