"""muquant: 3-bit mu-law compression of neural networks, and the truth about how robust the result is."""

from .artifact import (
    CompressedModel as CompressedModel,
)
from .artifact import (
    LayerReport as LayerReport,
)
from .artifact import (
    load as load,
)
from .budget import (
    Plan as Plan,
)
from .budget import (
    plan_widths as plan_widths,
)
from .budget import (
    read_plan as read_plan,
)
from .compression import compress as compress
from .errors import InputError as InputError
from .fake_quantize import MuLawFakeQuantize as MuLawFakeQuantize
from .observers import (
    AbsMaxObserver as AbsMaxObserver,
)
from .observers import (
    SearchObserver as SearchObserver,
)
from .qconfig import (
    mulaw_qconfig as mulaw_qconfig,
)
from .qconfig import (
    prepare_qat as prepare_qat,
)
from .spec import (
    SOURCE_SPEC as SOURCE_SPEC,
)
from .spec import (
    MuLawSpec as MuLawSpec,
)
from .tensor import QuantizedTensor as QuantizedTensor

__version__: str

__all__: list[str]
