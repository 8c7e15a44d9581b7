"""The pipeline: select layers, observe, round, and keep the result as one `CompressedModel`."""

import copy
import math
from collections.abc import Callable, Collection, Mapping, Sequence

from torch import Tensor, nn
from torch.nn.utils import parametrize

from muquant.artifact import CompressedModel, LayerReport
from muquant.errors import InputError, naming
from muquant.fake_quantize import MuLawFakeQuantize
from muquant.layers import (
    Override,
    Weight,
    override_formats,
    quantizable_weights,
    replace_weight,
    select_weights,
)
from muquant.observers import observer_class
from muquant.rounding import rounding_method
from muquant.sensitivity import Choice, Shape, Trial, candidates, input_shapes, layer_norms, sqnr
from muquant.spec import MuLawSpec
from muquant.tensor import QuantizedTensor


def compress(
    model: nn.Module,
    spec: MuLawSpec | None = None,
    *,
    layers: str = "all",
    overrides: Mapping[str, Override] | None = None,
    rounding: str = "nearest",
    observer: str = "search",
    example: Tensor | Sequence[Tensor] | None = None,
    on_layer: Callable[[str, int, int], None] | None = None,
) -> CompressedModel:
    """Compress the weights of `model`; biases, norms and the layers not picked stay float32. The model is not
    changed.

    Args:
        model: any module; half-precision weights are widened to float32. Where it was prepared by
            `prepare_qat`, its fake-quantized weights are frozen as trained, and `spec`, `layers`,
            `overrides`, `rounding`, `observer` must stay unset.
        spec: the format; 3 bits, mu searched, a scale for each channel by default.
        layers: "all", "last:K" or a regular expression, see `select_weights`; or "auto": all, each in the
            first format of `candidates(spec)` in which ||dW||_2 is at most 1, and float32 where there is
            none. `choices` of the result says what was tried.
        overrides: layers, in the forms above but "auto" -> another width or format: {"conv1": 8}. The last
            one that picks a layer counts; with "auto" these layers are not tried.
        rounding: a name of `ROUNDINGS`.
        observer: a name of `OBSERVERS`: how scale and mu are chosen.
        example: an input of the model, or several. The norms of a convolution depend on the size of its
            input; models of `muquant.models` know theirs, for others the norms of its matrix are reported
            where no example is given.
        on_layer: called before each weight with its name, its place and their number, for progress.

    Raises:
        InputError: no layer is picked, a weight holds NaN or infinity, a name is unknown, or the model does
            not run on `example`.
    """
    module = copy.deepcopy(model).cpu().float().eval()
    trained = unwrap(module)
    auto = layers == "auto"
    if trained:
        if spec is not None or overrides or (layers, rounding, observer) != ("all", "nearest", "search"):
            raise InputError(
                "the model was prepared for quantization-aware training, which fixed its layers and format; "
                "call compress(model) with no option to freeze it"
            )
        picked = [weight for weight in quantizable_weights(module) if id(weight.value) in trained]
    else:
        picked = select_weights(module, "all" if auto else layers)
    spec = spec or MuLawSpec()
    own = override_formats(picked, spec, overrides or {})
    quantize = _frozen(trained) if trained else _searched(observer, rounding)
    shapes = input_shapes(module, example)

    groups: dict[int, list[Weight]] = {}
    for weight in quantizable_weights(module):
        groups.setdefault(id(weight.value), []).append(weight)
    chosen = list(dict.fromkeys(id(weight.value) for weight in picked))
    tensors, aliases, reports, choices = {}, {}, [], []
    for index, key in enumerate(chosen):
        owners = groups[key]
        first = owners[0]
        if on_layer is not None:
            on_layer(first.name, index, len(chosen))
        tried = auto and key not in own
        trials = []
        with naming(first.name):
            for form in candidates(spec) if tried else (own.get(key, spec),):
                quantized = quantize(first, form)
                report = _report(owners, quantized, shapes)
                trials.append(Trial(report.bits, report.domain, report.delta_norms.two))
                if trials[-1].good:
                    break
        if tried:
            choices.append(Choice(first.name, tuple(trials)))
            if choices[-1].taken is None:
                continue
        tensors[first.name] = quantized
        aliases.update({owner.name: first.name for owner in owners[1:]})
        reports.append(report)
        replace_weight(owners, quantized.dequantize())
    if not tensors:
        raise InputError(
            'layers "auto": of no layer is ||dW||_2 at most 1, even at 8 bits; name the layers to compress'
        )
    return CompressedModel(module, tensors, aliases, tuple(reports), tuple(choices))


_Quantize = Callable[[Weight, MuLawSpec], QuantizedTensor]


def _searched(observer: str, rounding: str) -> _Quantize:
    """Quantize a weight by these methods."""
    choose, round_weight = observer_class(observer), rounding_method(rounding)

    def quantize(weight: Weight, spec: MuLawSpec) -> QuantizedTensor:
        watch = choose(spec, weight.channel_axis)
        watch(weight.value)
        scale, mu = watch.calculate_qparams()
        return round_weight(weight.value.detach(), scale, spec.with_mu(float(mu)), weight.channel_axis)

    return quantize


def _frozen(trained: Mapping[int, MuLawFakeQuantize]) -> _Quantize:
    """Quantize a weight as it was trained, whatever the format asked for."""

    def quantize(weight: Weight, _: MuLawSpec) -> QuantizedTensor:
        fake = trained[id(weight.value)]
        if fake.observer_enabled[0] == 1:
            fake.observe(weight.value)
        return fake.quantize(weight.value)

    return quantize


def unwrap(model: nn.Module) -> dict[int, MuLawFakeQuantize]:
    """Replace parametrized tensors of `model`, in place, by plain parameters; return our fake-quant modules
    by the id of theirs.

    Under our fake quantization that is the float weight, under any other parametrization the value that it
    gives. Torch's own `remove_parametrizations` would also break the model that `model` was copied from:
    copies share the class it edits.
    """
    fakes: dict[int, MuLawFakeQuantize] = {}
    for module in list(model.modules()):
        if isinstance(
            getattr(module, "weight_fake_quant", None), MuLawFakeQuantize
        ):  # torch.ao's prepare_qat
            fakes[id(module.weight)] = module.weight_fake_quant  # type: ignore[assignment]
            module.weight_fake_quant = nn.Identity()
        if not parametrize.is_parametrized(module):
            continue
        plain = {}
        for name, steps in module.parametrizations.items():  # type: ignore[union-attr, operator]
            if isinstance(steps[0], MuLawFakeQuantize):
                plain[name] = steps.original
                fakes[id(steps.original)] = steps[0]
            else:
                plain[name] = nn.Parameter(getattr(module, name).detach(), requires_grad=False)
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
        for name, value in plain.items():
            setattr(module, name, value)
    return fakes


def _report(
    owners: Sequence[Weight], quantized: QuantizedTensor, shapes: Mapping[nn.Module, Collection[Shape]]
) -> LayerReport:
    before, after = owners[0].value.detach(), quantized.dequantize()
    ratio = sqnr(before, after)
    matrix, operator = layer_norms(owners, after - before, shapes)
    return LayerReport(
        name=owners[0].name,
        shape=quantized.shape,
        bits=quantized.spec.bits,
        domain=quantized.spec.domain,
        mu=float(quantized.spec.mu),
        sqnr=ratio if math.isfinite(ratio) else None,
        matrix_norms=matrix,
        operator_norms=operator,
        nbytes=quantized.nbytes,
        float_nbytes=4 * before.numel(),
    )
