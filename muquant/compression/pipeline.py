"""The pipeline: select layers, observe, round, and keep the result as one `CompressedModel`."""

import copy
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from muquant.base.errors import InputError, naming
from muquant.compression.artifact import CompressedModel, LayerReport
from muquant.compression.auto import Choice, Trial, candidates
from muquant.compression.batch_norm import batch_norms, reestimate_batch_norms
from muquant.compression.calibration import samples_of, split
from muquant.compression.layers import (
    Override,
    Weight,
    override_formats,
    quantizable_weights,
    replace_weight,
    select_weights,
)
from muquant.compression.qat import unwrap
from muquant.compression.sensitivity import Shape, input_shapes, layer_norms
from muquant.format.spec import MuLawSpec
from muquant.models.calls import Example, Inputs
from muquant.quantization.fake_quantize import MuLawFakeQuantize
from muquant.quantization.moments import Samples
from muquant.quantization.outcome import Quantized
from muquant.quantization.quantize import choose_rounding, quantize
from muquant.quantization.resume import Finished


def compress(
    model: nn.Module,
    spec: MuLawSpec | None = None,
    *,
    layers: str = "all",
    overrides: Mapping[str, Override] | None = None,
    rounding: str | None = None,
    observer: str = "search",
    calibration: Example | None = None,
    corrections: bool = True,
    example: Example | None = None,
    finished: Finished | None = None,
    on_layer: Callable[[str, int, int], None] | None = None,
) -> CompressedModel:
    """Compress the weights of `model`; biases, norms and the layers not picked stay float32. The model is not
    changed.

    Args:
        model: any module; half-precision weights are widened to float32. Where it was prepared by
            `prepare_qat`, its fake-quantized weights are frozen as trained, and `spec`, `layers`,
            `overrides`, `rounding`, `observer`, `calibration` must stay unset.
        spec: the format; 3 bits, mu searched, a scale for each channel by default.
        layers: "all", "last:K" or a regular expression, see `select_weights`; or "auto": all, each in the
            first format of `candidates(spec)` in which ||dW||_2 is at most 1, and float32 where there is
            none. `choices` of the result says what was tried.
        overrides: layers, in the forms above but "auto", or "=NAME", one weight -> another width or format:
            {"conv1": 8}. The last one that picks a weight counts; with "auto" these layers are not tried.
        rounding: a name of `ROUNDINGS`; by default "nearest", with `calibration` "reconstructed". Of the
            methods up to it each weight takes the one that is best on held-out samples.
        observer: a name of `OBSERVERS`: how scale and mu are chosen.
        calibration: a few samples of what the model will be given, [N, ...] each, 4 or more; a quarter of
            them is held out. Codes are then chosen by the error of a layer's output, not of its weight.
        corrections: with `calibration`, whether biases may make up for the mean of a layer's error, and
            BatchNorm statistics may follow what compression does to activations, where held-out samples say
            that it helps.
        example: an input of the model, or several. The norms of a convolution depend on the size of its
            input; models of `muquant.models` know theirs, for others the norms of its matrix are reported
            where no example is given.
        finished: where each weight is kept once it is done, and taken from where it is there already: an
            interrupted job goes on.
        on_layer: called before each weight with its name, its place and their number, for progress.

    Raises:
        InputError: no layer is picked, a weight holds NaN or infinity or has a parametrization besides fake
            quantization, a name is unknown, the model does not run on `example` or `calibration`, or
            `rounding` needs a calibration that is not there.
    """
    module = copy.deepcopy(model).cpu().float().eval()
    trained = unwrap(module)
    auto = layers == "auto"
    if trained:
        if (
            spec
            or overrides
            or calibration is not None
            or (layers, rounding, observer) != ("all", None, "search")
        ):
            raise InputError(
                "the model was prepared for quantization-aware training, which fixed its layers and format; "
                "call compress(model) with no option to freeze it"
            )
        picked = [weight for weight in quantizable_weights(module) if id(weight.value) in trained]
    else:
        picked = select_weights(module, "all" if auto else layers)
    spec = spec or MuLawSpec()
    own = override_formats(picked, spec, overrides or {})
    quantizer = _Quantizer(
        observer,
        choose_rounding(rounding, calibrated=calibration is not None),
        trained,
        _own_biases(module) if corrections else frozenset(),
        finished,
    )
    if example is None and calibration is not None:
        example = Inputs.of(calibration).rows(0, 1).example
    shapes = input_shapes(module, example)

    by_value: dict[int, list[Weight]] = {}
    for weight in quantizable_weights(module):
        by_value.setdefault(id(weight.value), []).append(weight)
    chosen = {
        by_value[key][0].name: by_value[key] for key in dict.fromkeys(id(weight.value) for weight in picked)
    }
    tensors, shifts, reports, choices = {}, {}, [], []
    firsts = {name: owners[0] for name, owners in chosen.items()}
    for index, (name, samples) in enumerate(samples_of(module, firsts, calibration)):
        owners = chosen[name]
        key = id(owners[0].value)
        if on_layer is not None:
            on_layer(name, index, len(chosen))
        tried = auto and key not in own
        trials = []
        with naming(name):
            for form in candidates(spec) if tried else (own.get(key, spec),):
                quantized = quantizer(owners, form, samples)
                report = _report(owners, quantized, shapes)
                trials.append(Trial(report.bits, report.domain, report.delta_norms.two))
                if trials[-1].good:
                    break
        if tried:
            choices.append(Choice(name, tuple(trials)))
            if choices[-1].taken is None:
                continue
        tensors[name] = quantized.tensor
        if quantized.shift is not None and owners[0].bias is not None:
            shifts[owners[0].bias] = quantized.shift
        reports.append(report)
    if not tensors:
        raise InputError(
            'layers "auto": of no layer is ||dW||_2 at most 1, even at 8 bits; name the layers to compress'
        )
    calibrated = calibration is not None and corrections and batch_norms(module)
    reference = copy.deepcopy(module) if calibrated else None
    for name, tensor in tensors.items():
        replace_weight(chosen[name], tensor.dequantize())
    with torch.no_grad():
        for bias, shift in shifts.items():
            bias.add_(shift)
    batch_norm = None
    if reference is not None and calibration is not None:
        batch_norm = reestimate_batch_norms(module, reference, *split(calibration))
    aliases = {owner.name: name for name in tensors for owner in chosen[name][1:]}
    return CompressedModel(module, tensors, aliases, tuple(reports), tuple(choices), batch_norm)


def _own_biases(model: nn.Module) -> frozenset[int]:
    """The ids of the parameters that only one module has, under one name."""
    counts = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    return frozenset(key for key, count in counts.items() if count == 1)


@dataclass(frozen=True)
class _Quantizer:
    """Quantizes weights by these methods; those that were trained at few bits as they were trained.

    Attributes:
        observer: as for `compress`.
        rounding: likewise.
        trained: fake-quant modules by the id of their weight.
        biases: ids of those that may be changed.
        finished: as for `compress`.
    """

    observer: str
    rounding: str
    trained: Mapping[int, MuLawFakeQuantize]
    biases: Collection[int]
    finished: Finished | None

    def __call__(self, owners: Sequence[Weight], spec: MuLawSpec, samples: Samples | None) -> Quantized:
        weight = owners[0]
        if id(weight.value) in self.trained:
            fake = self.trained[id(weight.value)]
            if fake.observer_enabled[0] == 1:
                fake.observe(weight.value)
            return Quantized(fake.quantize(weight.value))
        return quantize(
            weight.value.detach(),
            spec,
            weight.channel_axis,
            self.observer,
            self.rounding,
            samples,
            biased=len(owners) == 1 and id(weight.bias) in self.biases,
            finished=self.finished,
        )


def _report(
    owners: Sequence[Weight], outcome: Quantized, shapes: Mapping[nn.Module, Collection[Shape]]
) -> LayerReport:
    before, after = owners[0].value.detach(), outcome.tensor.dequantize()
    matrix, operator = layer_norms(owners, after - before, shapes)
    return LayerReport(
        **outcome.summary(owners[0].name, before),
        matrix_norms=matrix,
        operator_norms=operator,
        float_nbytes=4 * before.numel(),
    )
