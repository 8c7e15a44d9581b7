"""The names that muquant takes from torch.ao, in one place: upstream is moving them to torchao."""

from torch.ao.quantization import QConfig
from torch.ao.quantization.fake_quantize import FakeQuantizeBase
from torch.ao.quantization.observer import ObserverBase

__all__ = ["FakeQuantizeBase", "ObserverBase", "QConfig"]
