"""Fake quantization, torch.ao style: forward decodes as deployed, backward lets gradients through."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from muquant.base.errors import InputError
from muquant.format.channels import Channels
from muquant.format.spec import MAX_MU, MuLawSpec
from muquant.format.tensor import QuantizedTensor
from muquant.quantization.observers import SearchObserver, WeightObserver
from muquant.quantization.rounding import nearest
from muquant.quantization.straight_through import StraightThrough
from muquant.quantization.torch_ao import FakeQuantizeBase

SMALLEST_MU = 0.01
"""Where a learned mu starts if the observer finds uniform levels best: at 0 its logarithm could not move."""

LOG_ZERO = -1e18
"""The logarithm of the scale of an all-zero channel: it decodes to exactly 0, no gradient, weight decay or
averaging moves it away from there, and unlike -inf none of them makes a NaN of it."""


class MuLawFakeQuantize(FakeQuantizeBase):
    """Decodes a weight as its deployed form will be, and learns scale and mu.

    The switches are torch.ao's (`enable_observer`, `disable_fake_quant` ...): while the observer is on it
    sets scale and mu from each weight that comes; once it is off, they are parameters that training moves.
    Both are kept positive by learning their logarithms; an all-zero channel has scale 0 and stays exactly
    zero.

    The scale's shape is known from the first weight that comes: `prepare_qat` passes one at once; with
    torch.ao's own `prepare_qat`, run one forward before the optimizer is built.

    Args:
        spec: the format, in the decoded domain; a mu that is a number stays fixed, "auto" is observed, then
            learned. Steps are learned, and stay float32.
        channel_axis: the weight's axis of output channels, or its `Channels`.
        observer: the class of the observer.
        learn: whether scale and mu receive gradients.

    Raises:
        InputError: the spec is of the mapped domain, which is a step after training.
    """

    fake_quant_enabled: Tensor
    observer_enabled: Tensor

    def __init__(
        self,
        spec: MuLawSpec | None = None,
        channel_axis: int | Channels = 0,
        observer: type[WeightObserver] = SearchObserver,
        learn: bool = True,
        **_: Any,
    ) -> None:
        super().__init__()
        self.spec = replace(spec or MuLawSpec(), step_bits=32)
        if self.spec.domain == "mapped":
            raise InputError(
                'domain "mapped" cannot be fake-quantized: mapping is a step after training; use "decoded"'
            )
        self.channels = Channels.of(channel_axis)
        self.activation_post_process = observer(self.spec, self.channels)  # torch.ao's name for the observer
        self.log_scale = UninitializedParameter(requires_grad=learn)
        self.log_mu = nn.Parameter(torch.tensor(0.0), requires_grad=learn and self.spec.mu == "auto")

    @property
    def scale(self) -> Tensor:
        """Scale, float32, `Granularity.step_shape`."""
        return self.log_scale.exp()

    @property
    def mu(self) -> Tensor:
        """Companding parameter, float32 []."""
        if self.spec.mu != "auto":
            return torch.tensor(self.spec.mu, dtype=torch.float64)
        return self.log_mu.exp().clamp(max=MAX_MU)

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return scale and mu as they stand."""
        return self.scale, self.mu

    def forward(self, weight: Tensor) -> Tensor:
        """Observe and decode `weight` (any shape), as the switches say."""
        if self.observer_enabled[0] == 1:
            self.observe(weight)
        if self.fake_quant_enabled[0] == 0:
            return weight
        spec = self.spec.with_mu(float(self.mu.detach()))
        decoded: Tensor = StraightThrough.apply(weight, self.log_scale, self.log_mu, spec, self.channels)
        return decoded

    @torch.no_grad()
    def observe(self, weight: Tensor) -> None:
        """Set scale and mu from `weight`."""
        self.activation_post_process(weight)
        scale, mu = self.activation_post_process.calculate_qparams()
        if isinstance(self.log_scale, UninitializedParameter):
            self.log_scale.materialize(scale.shape, device=weight.device, dtype=torch.float32)
        self.log_scale.copy_(scale.log().clamp(min=LOG_ZERO))
        self.log_mu.copy_(mu.float().clamp(min=SMALLEST_MU).log())

    @torch.no_grad()
    def quantize(self, weight: Tensor) -> QuantizedTensor:
        """Return the deployed form of `weight`; it decodes to `forward`'s output, bit for bit."""
        return nearest(weight.float(), self.scale, self.spec.with_mu(float(self.mu)), self.channels)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        saved = state_dict.get(f"{prefix}log_scale")
        if isinstance(self.log_scale, UninitializedParameter) and saved is not None:
            self.log_scale.materialize(saved.shape, dtype=saved.dtype)
        observer = self.activation_post_process
        observer.scale = observer.scale.new_empty(
            state_dict.get(f"{prefix}activation_post_process.scale", observer.scale).shape
        )
        super()._load_from_state_dict(state_dict, prefix, *rest)
