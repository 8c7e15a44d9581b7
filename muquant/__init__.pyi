"""muquant: 3-bit mu-law compression of neural networks, and the truth about how robust the result is."""

from .base.errors import InputError as InputError
from .compression.answers import (
    AnswersCheck as AnswersCheck,
    AnswersWarning as AnswersWarning,
    OutputCheck as OutputCheck,
)
from .compression.artifact import (
    CompressedModel as CompressedModel,
    LayerReport as LayerReport,
    load as load,
)
from .compression.budget import (
    Plan as Plan,
    read_plan as read_plan,
)
from .compression.left import (
    LeftFloat as LeftFloat,
    left_float as left_float,
)
from .compression.pipeline import compress as compress
from .compression.planning import plan_widths as plan_widths
from .compression.qat import (
    mulaw_qconfig as mulaw_qconfig,
    prepare_qat as prepare_qat,
)
from .format.spec import (
    SOURCE_SPEC as SOURCE_SPEC,
    MuLawSpec as MuLawSpec,
)
from .format.tensor import QuantizedTensor as QuantizedTensor
from .quantization.fake_quantize import MuLawFakeQuantize as MuLawFakeQuantize
from .quantization.observers import (
    AbsMaxObserver as AbsMaxObserver,
    SearchObserver as SearchObserver,
)

__version__: str

__all__: list[str]
