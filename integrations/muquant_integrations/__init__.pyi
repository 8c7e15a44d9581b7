"""muquant where people already work: thin doors between it and other libraries, a file each."""

from .lightning import MuLawQAT as MuLawQAT
from .olive import (
    MuLawCompression as MuLawCompression,
    package_config as package_config,
)
from .pretrained import MuLawModel as MuLawModel
from .torchao import (
    MuLawConfig as MuLawConfig,
    quantize_ as quantize_,
    register_with_torchao as register_with_torchao,
)

__all__: list[str]
