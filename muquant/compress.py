"""The pipeline: select layers, observe, round, and keep the result as one `CompressedModel`."""

import copy
import math
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.utils import parametrize

from muquant.artifact import CompressedModel, LayerReport
from muquant.errors import InputError, naming
from muquant.fake_quantize import MuLawFakeQuantize
from muquant.layers import Weight, quantizable_weights, replace_weight, select_weights
from muquant.observers import observer_class
from muquant.rounding import rounding_method
from muquant.sensitivity import spectral_norm, sqnr
from muquant.spec import MuLawSpec
from muquant.tensor import QuantizedTensor


def compress(
    model: nn.Module,
    spec: MuLawSpec | None = None,
    *,
    layers: str = "all",
    rounding: str = "nearest",
    observer: str = "search",
    on_layer: Callable[[str, int, int], None] | None = None,
) -> CompressedModel:
    """Compress the weights of `model`; biases, norms and the layers not picked stay float32. The model is not
    changed.

    Args:
        model: any module; half-precision weights are widened to float32. Where it was prepared by
            `prepare_qat`, its fake-quantized weights are frozen as trained, and `spec`, `layers`, `rounding`,
            `observer` must stay unset.
        spec: the format; 3 bits, mu searched, a scale for each channel by default.
        layers: "all", "last:K" or a regular expression, see `select_weights`.
        rounding: a name of `ROUNDINGS`.
        observer: a name of `OBSERVERS`: how scale and mu are chosen.
        on_layer: called before each weight with its name, its place and their number, for progress.

    Raises:
        InputError: no layer is picked, a weight holds NaN or infinity, or a name is unknown.
    """
    module = copy.deepcopy(model).cpu().float().eval()
    trained = _unwrap(module)
    if trained:
        if spec is not None or (layers, rounding, observer) != ("all", "nearest", "search"):
            raise InputError(
                "the model was prepared for quantization-aware training, which fixed its layers and format; "
                "call compress(model) with no option to freeze it"
            )
        picked = [weight for weight in quantizable_weights(module) if id(weight.value) in trained]
    else:
        picked = select_weights(module, layers)
    spec = spec or MuLawSpec()
    choose, round_weight = observer_class(observer), rounding_method(rounding)

    groups: dict[int, list[Weight]] = {}
    for weight in quantizable_weights(module):
        groups.setdefault(id(weight.value), []).append(weight)
    chosen = list(dict.fromkeys(id(weight.value) for weight in picked))
    tensors, aliases, report = {}, {}, []
    for index, key in enumerate(chosen):
        owners = groups[key]
        first = owners[0]
        if on_layer is not None:
            on_layer(first.name, index, len(chosen))
        before = first.value.detach()
        with naming(first.name):
            if trained:
                if trained[key].observer_enabled[0] == 1:
                    trained[key].observe(before)
                quantized = trained[key].quantize(before)
            else:
                watch = choose(spec, first.channel_axis)
                watch(before)
                scale, mu = watch.calculate_qparams()
                quantized = round_weight(before, scale, spec.with_mu(float(mu)), first.channel_axis)
        tensors[first.name] = quantized
        aliases.update({owner.name: first.name for owner in owners[1:]})
        report.append(_report(first.name, before, quantized))
        replace_weight(owners, quantized.dequantize())
    return CompressedModel(module, tensors, aliases, tuple(report))


def _unwrap(model: nn.Module) -> dict[int, MuLawFakeQuantize]:
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


def _report(name: str, before: Tensor, quantized: QuantizedTensor) -> LayerReport:
    after = quantized.dequantize()
    ratio = sqnr(before, after)
    return LayerReport(
        name=name,
        shape=quantized.shape,
        bits=quantized.spec.bits,
        mu=float(quantized.spec.mu),
        sqnr=ratio if math.isfinite(ratio) else None,
        delta_norm=spectral_norm(before - after, quantized.channel_axis),
        nbytes=quantized.nbytes,
        float_nbytes=4 * before.numel(),
    )
