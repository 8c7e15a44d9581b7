"""The weights of a graph, from float to packed codes, one at a time in memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from muquant.base.errors import naming
from muquant.compression.options import TUNED, CompressionOptions
from muquant.compression.tuning import TuningReport
from muquant.format.spec import MuLawSpec
from muquant.format.tensor import QuantizedTensor
from muquant.quantization.outcome import Outcome
from muquant.quantization.quantize import quantize
from muquant_onnx.format.packed_weight import PackedWeight
from muquant_onnx.from_onnx.biases import find_bias
from muquant_onnx.from_onnx.calibrate import graph_samples
from muquant_onnx.from_onnx.find import FoundWeight
from muquant_onnx.from_onnx.floats import read_float
from muquant_onnx.from_onnx.report import WeightReport
from muquant_onnx.from_onnx.spool import Spool
from muquant_onnx.from_onnx.tuning import tune_graph

NOISE = 0.1
"""What is added to made-up inputs of each layer, as a share of their power. They lack much that others have:
fitted to them alone, codes of a detector were worse than those of the weights alone."""
OnLayer = Callable[[str, int, int], None]
"""(what is done next, its place, their number), for progress."""


@dataclass(eq=False)
class Quantizer:
    """Quantizes weights of a graph as they were asked for, and keeps what became of them.

    Attributes:
        source: the ONNX file.
        model: the graph that was read from it; its biases are corrected in place.
        formats: weight -> its format, and what there is to say of that.
        options: of the compression.
        spool: where packed codes are kept.
        packed: those that are done, by name.
        reports: what was done to each.
    """

    source: Path
    model: ir.Model
    formats: Mapping[FoundWeight, tuple[MuLawSpec, str]]
    options: CompressionOptions
    spool: Spool
    packed: dict[str, PackedWeight] = field(default_factory=dict)
    reports: dict[FoundWeight, WeightReport] = field(default_factory=dict)
    _done: dict[FoundWeight, Outcome] = field(default_factory=dict)

    def quantize(self, on_layer: OnLayer | None) -> None:
        """Quantize all weights, in their order.

        Args:
            on_layer: called before each.
        """
        options, done = self.options, self._done
        known = graph_samples(
            self.source, list(self.formats), options.samples, None if options.made_up else done
        )
        for number, (weight, samples, unseen) in enumerate(known):
            if on_layer is not None:
                on_layer(weight.name, number, len(self.formats))
            if samples is not None and options.made_up:
                samples = samples.with_noise(NOISE)
            with naming(weight.name):
                values = read_float(weight.tensor)
                bias = find_bias(weight, self.model.graph) if options.corrects else None
                outcome = quantize(
                    values,
                    self.formats[weight][0],
                    weight.channels,
                    options.observer,
                    options.method,
                    samples,
                    biased=bias is not None,
                    finished=options.finished,
                )
                if bias is not None and outcome.shift is not None:
                    bias.shift(outcome.shift, weight)
                if options.samples is not None:
                    done[weight] = outcome
                summary = outcome.summary(weight.name, values, unseen)
                del values  # it is not needed while the codes are packed
                self._keep(weight, outcome.tensor, summary)

    def tune(self, on_step: OnLayer | None) -> TuningReport:
        """Train all weights together, from where they are; return how that went.

        Args:
            on_step: called after each step.
        """
        before = {weight: outcome.tensor for weight, outcome in self._done.items()}
        changed, report = tune_graph(self.source, self.model, before, self.options, on_step)
        for weight, tensor in changed.items():
            outcome = replace(self._done[weight], tensor=tensor, rounding=TUNED, output=None)
            unseen = self.reports[weight].not_calibrated
            self._keep(weight, tensor, outcome.summary(weight.name, read_float(weight.tensor), unseen))
        return report

    def _keep(self, weight: FoundWeight, tensor: QuantizedTensor, summary: Mapping[str, Any]) -> None:
        self.reports[weight] = WeightReport(
            **summary,
            source=weight.source,
            source_nbytes=weight.tensor.nbytes,
            served=(),
            note=self.formats[weight][1],
        )
        self.packed[weight.name] = self.spool.add(weight.name, tensor, ir.DataType(weight.tensor.dtype))
