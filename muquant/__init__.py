"""muquant: 3-bit mu-law compression of neural networks, and the truth about how robust the result is."""

from importlib.metadata import version

from muquant.artifact import CompressedModel, LayerReport, load
from muquant.budget import Plan, plan_widths, read_plan
from muquant.compress import compress
from muquant.errors import InputError
from muquant.fake_quantize import MuLawFakeQuantize
from muquant.observers import AbsMaxObserver, SearchObserver
from muquant.qconfig import mulaw_qconfig, prepare_qat
from muquant.spec import SOURCE_SPEC, MuLawSpec
from muquant.tensor import QuantizedTensor

__version__ = version("muquant")

__all__ = [
    "SOURCE_SPEC",
    "AbsMaxObserver",
    "CompressedModel",
    "InputError",
    "LayerReport",
    "MuLawFakeQuantize",
    "MuLawSpec",
    "Plan",
    "QuantizedTensor",
    "SearchObserver",
    "__version__",
    "compress",
    "load",
    "mulaw_qconfig",
    "plan_widths",
    "prepare_qat",
    "read_plan",
]
