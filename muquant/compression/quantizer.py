"""Weights of a module as they were asked for in few bits, and put in place."""

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from muquant.compression.artifact import LayerReport
from muquant.compression.auto import TriedFormat, candidates
from muquant.compression.batch_norm import Reestimation, batch_norms, reestimate_batch_norms
from muquant.compression.computed import Trained
from muquant.compression.layers import Weight
from muquant.compression.options import CompressionOptions
from muquant.compression.sensitivity import Shape, layer_norms
from muquant.format.spec import MuLawSpec
from muquant.quantization.moments import InputMoments
from muquant.quantization.outcome import Outcome
from muquant.quantization.quantize import quantize

NO_HELP = "with samples the network answers those held out no better"


@dataclass(frozen=True, eq=False)
class Compressed:
    """What became of a weight, and what is said of it."""

    outcome: Outcome
    report: LayerReport


@dataclass(frozen=True, eq=False)
class Quantizer:
    """Quantizes weights as they were asked for; those that were trained at few bits as they were trained.

    Attributes:
        options: what was asked for.
        trained: weight -> how it was trained for few bits.
        own: the formats of weights that have one of their own.
        shapes: of the inputs of convolutions, see `input_shapes`.
    """

    options: CompressionOptions
    trained: Mapping[nn.Parameter, Trained]
    own: Mapping[Weight, MuLawSpec]
    shapes: Mapping[nn.Module, Collection[Shape]]

    def __call__(
        self, weight: Weight, samples: InputMoments | None, unseen: str
    ) -> tuple[Compressed | None, list[TriedFormat]]:
        """Return what becomes of a weight, None where it stays float32, and what "auto" tried for it;
        `unseen` says why its inputs are not known."""
        options = self.options
        if weight in self.own:
            return self._compressed(weight, self.own[weight], samples, unseen), []
        if options.layers != "auto":
            spec, note = options.default_format(recurrent=weight.recurrent and not self.trained)
            return self._compressed(weight, spec, samples, unseen, note), []
        tried: list[TriedFormat] = []
        for spec in candidates(options.format):
            found = self._compressed(weight, spec, samples, unseen)
            tried.append(TriedFormat(spec.bits, spec.domain, found.report.delta_norms.two))
            if tried[-1].good:
                return found, tried
        return None, tried

    def _compressed(
        self, weight: Weight, spec: MuLawSpec, samples: InputMoments | None, unseen: str, note: str = ""
    ) -> Compressed:
        return self.reported(
            weight, weight.value.detach(), self._outcome(weight, spec, samples), unseen, note
        )

    def without_samples(self, weight: Weight, found: Compressed) -> Compressed:
        """Return what becomes of a weight in the same format where nothing is known of its inputs; it is
        kept nowhere."""
        alone = replace(self, options=replace(self.options, finished=None))
        asked = self.own.get(weight, self.options.format)
        spec = replace(found.outcome.tensor.spec, mu=asked.mu)
        unseen = found.report.not_calibrated or NO_HELP
        return alone._compressed(weight, spec, None, unseen, found.report.note)

    def reported(
        self, weight: Weight, before: Tensor, outcome: Outcome, unseen: str, note: str
    ) -> Compressed:
        """Return an outcome with what is said of it; the float weight was `before`."""
        after = outcome.tensor.dequantize()
        matrix, operator = layer_norms(weight.owners, after - before, self.shapes)
        report = LayerReport(
            **outcome.summary(weight.name, before, unseen),
            note=note,
            matrix_norms=matrix,
            operator_norms=operator,
            float_nbytes=4 * before.numel(),
        )
        return Compressed(outcome, report)

    def _outcome(self, weight: Weight, spec: MuLawSpec, samples: InputMoments | None) -> Outcome:
        trained = self.trained.get(weight.value)  # type: ignore[call-overload]
        if trained is not None:
            if trained.fake.observer_enabled[0] == 1:
                trained.fake.observe(weight.value)
            return Outcome(trained.fake.quantize(weight.value), trained.rounding)
        return quantize(
            weight.value.detach(),
            spec,
            weight.channels,
            self.options.observer,
            self.options.method,
            samples,
            biased=self.options.corrections and weight.own_bias is not None,
            finished=self.options.finished,
        )


def put_in_place(
    module: nn.Module, done: Mapping[Weight, Compressed], options: CompressionOptions | None = None
) -> Reestimation | None:
    """Give the layers of `module` what became of their weights; and with `options` the corrections of
    BatchNorm statistics that help."""
    corrects = options is not None and options.corrections and batch_norms(module)
    samples = options.samples if options is not None and corrects else None
    reference = copy.deepcopy(module) if samples is not None else None
    for weight, each in done.items():
        weight.replace(each.outcome.tensor.dequantize())
        if each.outcome.shift is not None and weight.own_bias is not None:
            with torch.no_grad():
                weight.own_bias.add_(each.outcome.shift)
    if reference is None or samples is None:
        return None
    return reestimate_batch_norms(module, reference, *samples)
