"""muquant: 3-bit mu-law compression of neural networks, and the truth about how robust the result is."""

from .artifact import (
    CompressedModel as CompressedModel,
    LayerReport as LayerReport,
    load as load,
)
from .budget import (
    Plan as Plan,
    plan_widths as plan_widths,
    read_plan as read_plan,
)
from .compression import compress as compress
from .errors import InputError as InputError
from .fake_quantize import MuLawFakeQuantize as MuLawFakeQuantize
from .observers import (
    AbsMaxObserver as AbsMaxObserver,
    SearchObserver as SearchObserver,
)
from .qconfig import (
    mulaw_qconfig as mulaw_qconfig,
    prepare_qat as prepare_qat,
)
from .spec import (
    SOURCE_SPEC as SOURCE_SPEC,
    MuLawSpec as MuLawSpec,
)
from .tensor import QuantizedTensor as QuantizedTensor

__version__: str

__all__: list[str]
