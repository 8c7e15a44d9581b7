"""Observers, torch.ao style: they watch a weight and choose its scale and mu.

An observer is called with the weight (shape unchanged, returned as it is) and then asked for
`calculate_qparams()`. It keeps only the last weight that it saw: weights are not a stream of samples, the
newest one is the one to quantize.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from muquant.base.errors import InputError
from muquant.base.registry import look_up
from muquant.format.channels import Channels
from muquant.format.law import grid_levels
from muquant.format.rows import row_chunks, to_rows
from muquant.format.spec import MuLawSpec
from muquant.quantization.torch_ao import ObserverBase


class QuantParams(NamedTuple):
    """What an observer chooses.

    Attributes:
        scale: float32, `Granularity.step_shape`; the weight that the outermost level decodes to; 0 where all
            are zero.
        mu: float64, shape [].
    """

    scale: Tensor
    mu: Tensor


class WeightObserver(ObserverBase):
    """Base of the observers: lays a weight out as rows that share a scale, and keeps the outcome.

    Args:
        spec: the format; a mu of "auto" is chosen here.
        channel_axis: the weight's axis of output channels, or its `Channels`.
    """

    scale: Tensor
    mu: Tensor

    def __init__(self, spec: MuLawSpec | None = None, channel_axis: int | Channels = 0, **_: object) -> None:
        super().__init__(dtype=torch.uint8)
        self.spec = spec or MuLawSpec()
        self.channels = Channels.of(channel_axis)
        self.register_buffer("scale", torch.empty(0))
        self.register_buffer("mu", torch.tensor(0.0, dtype=torch.float64))

    def forward(self, weight: Tensor) -> Tensor:
        """Observe `weight` and return it unchanged.

        Raises:
            InputError: the weight holds NaN or infinity.
        """
        values = weight.detach().float().cpu()  # the histograms are made there
        if values.numel() and not torch.stack(torch.aminmax(values)).isfinite().all():  # NaN passes through
            bad = values.numel() - int(torch.isfinite(values).sum())
            raise InputError(
                f"weight of shape {tuple(weight.shape)} holds {bad} values that are NaN or infinite; "
                "expected finite weights; train or export the model again"
            )
        rows, padding = to_rows(values, self.spec, self.channels), None
        channels = self.channels.count(tuple(weight.shape))
        shape = self.spec.steps.step_shape(channels, self.channels.inputs(tuple(weight.shape)))
        if self.spec.steps.kind == "group":
            padding = torch.zeros(shape, dtype=torch.float64)
            padding[:, -1:] = (rows.numel() - values.numel()) // max(channels, 1)
        scale, mu = self.choose(rows, None if padding is None else padding.reshape(-1))
        self.scale = scale.reshape(shape).to(device=weight.device, dtype=torch.float32)
        self.mu = torch.tensor(mu, dtype=torch.float64)
        return weight

    def calculate_qparams(self) -> QuantParams:  # type: ignore[override]
        """Return scale and mu for the last weight seen."""
        return QuantParams(self.scale, self.mu)

    def choose(self, rows: Tensor, padding: Tensor | None) -> tuple[Tensor, float]:
        """Return scales (one a row, or one in all for "tensor") and mu for `rows` [rows, n], float32.

        `padding` [rows] says how many zeros at the end of each row are not weights; None means none.
        """
        raise NotImplementedError


class SearchObserver(WeightObserver):
    """Searches scale and mu for the least squared error between weights and levels.

    Every row becomes a histogram of |w| / max|w|: the count n_b and the sum s_b of each bin. For a codebook
    (mu) and a clipping ratio, each bin has its level a_b, the best scale for that assignment is sum(s a) /
    sum(n a^2), and it lowers the squared error by sum(s a)^2 / sum(n a^2). So all rows x ratios are two
    matrix products, with no pass over the weights. Bins are uniform in the square root of the magnitude, fine
    where the mass of a heavy-tailed weight lies.

    One mu is chosen for the tensor (from a sample of its rows where there are many), one scale for each row.
    """

    BINS = 128
    """For 3 bits; twice as many for each bit more, to 6."""
    MUS = (0.0, *(0.25 * 2 ** (0.4 * i) for i in range(26)))
    """The values of mu that are tried first, to 256."""
    REFINED = 2
    """The best so many of them are refined: rounding to the grid makes the error a bumpy function of mu."""
    SAMPLE = 2**18
    """Cells (rows x bins) that the search for mu looks at."""

    def choose(self, rows: Tensor, padding: Tensor | None) -> tuple[Tensor, float]:
        """Search; the mapped domain takes its scale from the absolute maximum, on which F is defined."""
        if self.spec.domain == "mapped":
            return _top(rows, self.spec.steps.kind == "tensor"), float(self.spec.mu)
        whole = self.spec.steps.kind == "tensor"
        bins, ratios = self.bins(), self.ratios()
        mu = self.choose_mu(rows, padding)
        spec = self.spec.with_mu(mu)
        if whole:
            return _Histogram(rows, padding, bins, whole).scale(spec, ratios), mu
        scale = torch.empty(len(rows))
        for part in row_chunks(rows):
            histogram = _Histogram(rows[part], None if padding is None else padding[part], bins, whole)
            scale[part] = histogram.scale(spec, ratios)
        return scale, mu

    def ratios(self) -> Tensor:
        """The ratios of scale to the largest magnitude that are tried, float64 [ratios]."""
        finer = self._finer()
        return torch.logspace(-1.7 + 0.2 * finer, 0.05, 72 * (1 + finer), dtype=torch.float64)

    def bins(self) -> int:
        """The number of bins of a histogram."""
        return self.BINS << self._finer()

    def _finer(self) -> int:
        return min(max(self.spec.bits - 3, 0), 3)

    def choose_mu(self, rows: Tensor, padding: Tensor | None) -> float:
        """Return the spec's mu, or search it over a coarse and then a fine grid."""
        if self.spec.mu != "auto":
            return float(self.spec.mu)
        whole = self.spec.steps.kind == "tensor"
        stride = 1 if whole else max(1, len(rows) * self.bins() // self.SAMPLE)
        sample = _Histogram(
            rows[::stride], None if padding is None else padding[::stride], self.bins(), whole
        )

        tried: dict[tuple[int, ...], float] = {}  # many mus round to one codebook, most of all at few bits

        def gain(mu: float) -> float:
            spec = self.spec.with_mu(mu)
            codebook = tuple(grid_levels(spec).tolist())
            if codebook not in tried:
                tried[codebook] = self.gain(sample, spec)
            return tried[codebook]

        gains = [gain(mu) for mu in self.MUS]
        finer = []
        for best in sorted(range(len(gains)), key=gains.__getitem__)[-self.REFINED :]:
            low, high = self.MUS[max(best - 1, 0)], self.MUS[min(best + 1, len(gains) - 1)]
            finer += [low + (high - low) * i / 24 for i in range(25)]
        return max(finer, key=gain)

    def gain(self, sample: "_Histogram", spec: MuLawSpec) -> float:
        """Squared error that `spec` saves on a sample of the rows, against decoding all to zero."""
        return sample.gain(spec, self.ratios()[:: 1 + self._finer()])


class AbsMaxObserver(SearchObserver):
    """Takes the largest magnitude as the scale; an "auto" mu is searched for that scale."""

    def choose(self, rows: Tensor, padding: Tensor | None) -> tuple[Tensor, float]:
        """Return the absolute maxima, and mu."""
        return _top(rows, self.spec.steps.kind == "tensor"), self.choose_mu(rows, padding)

    def gain(self, sample: "_Histogram", spec: MuLawSpec) -> float:
        """Squared error that `spec` saves where the scale is the absolute maximum itself."""
        return sample.gain_at_top(spec)


OBSERVERS: dict[str, type[WeightObserver]] = {
    "search": SearchObserver,
    "absmax": AbsMaxObserver,
}


def observer_class(name: str) -> type[WeightObserver]:
    """Return the observer called `name`."""
    return look_up("observer", name, OBSERVERS)


def _top(rows: Tensor, whole: bool) -> Tensor:
    """Largest magnitude of each row [rows], or with `whole` of all of them [1]."""
    if rows.numel() == 0:
        return torch.zeros(1 if whole else len(rows))
    top = torch.cat([rows[part].abs().amax(1) for part in row_chunks(rows)])
    return top.amax(0, keepdim=True) if whole else top


class _Histogram:
    """Counts and sums of |w| / top by bin, float64 [rows, bins]; with `whole`, of all rows, [1, bins]."""

    def __init__(self, rows: Tensor, padding: Tensor | None, bins: int, whole: bool) -> None:
        self.bins = bins
        self.top = _top(rows, whole).double()
        self.count = torch.zeros(len(self.top), bins)
        self.sum = torch.zeros_like(self.count)
        for part in row_chunks(rows):
            own = self.top if whole else self.top[part]
            magnitude = rows[part].abs() / torch.where(own > 0, own, 1.0).float()[:, None]
            index = (magnitude.sqrt() * bins).int().clamp_(max=bins - 1)
            if not whole:
                index += torch.arange(len(index), dtype=torch.int32)[:, None] * bins
            if not whole and index.stride(0) < index.stride(1):
                index, magnitude = index.T, magnitude.T  # as they lie in memory; a row keeps its order
            flat, into = index.reshape(-1), slice(None) if whole else part
            size = bins * len(own)
            self.count[into] += torch.bincount(flat, minlength=size).reshape(-1, bins)
            self.sum[into] += torch.bincount(flat, magnitude.reshape(-1), minlength=size).reshape(-1, bins)
        if padding is not None:
            self.count[:, 0] -= padding

    def gain(self, spec: MuLawSpec, ratios: Tensor) -> float:
        """Squared error saved, against decoding to zero, when each row has its best ratio."""
        product, power = self._products(spec, ratios)
        best = (product.square() / power).amax(1)
        return float((best * self.top.square()).sum())

    def gain_at_top(self, spec: MuLawSpec) -> float:
        """Squared error saved, against decoding to zero, when each row has its top as the scale."""
        product, power = self._products(spec, torch.ones(1, dtype=torch.float64))
        return float(((2 * product - power)[:, 0] * self.top.square()).sum())

    def scale(self, spec: MuLawSpec, ratios: Tensor) -> Tensor:
        """The best scale of each row, float32 [rows]."""
        product, power = self._products(spec, ratios)
        best = (product.square() / power).argmax(1, keepdim=True)
        ratio = product.gather(1, best) / power.gather(1, best)
        return (ratio[:, 0] * self.top).float()

    def _products(self, spec: MuLawSpec, ratios: Tensor) -> tuple[Tensor, Tensor]:
        """sum(s a) and sum(n a^2) for each row and ratio, float64 [rows, ratios]."""
        magnitudes = sorted(set(grid_levels(spec)[: spec.codes].abs().tolist()))
        levels = torch.tensor(magnitudes, dtype=torch.float64) / spec.grid_max
        centre = ((torch.arange(self.bins, dtype=torch.float64) + 0.5) / self.bins).square()
        boundaries = (levels[1:] + levels[:-1]) / 2
        assigned = levels[torch.bucketize(centre[:, None] / ratios, boundaries, right=True)]
        assigned = assigned.float()
        power = self.count @ assigned.square()
        return (self.sum @ assigned).double(), power.double().clamp(min=torch.finfo(torch.float64).tiny)
