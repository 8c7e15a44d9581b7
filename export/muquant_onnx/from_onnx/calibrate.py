"""Run a graph on samples under onnxruntime, and keep the moments of what its weights are multiplied by."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import onnx_ir as ir
import torch
from torch import Tensor

from muquant.base.errors import InputError
from muquant.compression.calibration import Samples, in_parts
from muquant.quantization.moments import InputMoments, Moments, MomentSums
from muquant_onnx.files.write import write_graph
from muquant_onnx.format.names import label
from muquant_onnx.from_onnx.feeds import Feeds
from muquant_onnx.from_onnx.find import FoundWeight, Use, find_weights
from muquant_onnx.from_onnx.operands import OPERANDS, vectors
from muquant_onnx.from_onnx.read import read_graph
from muquant_onnx.from_onnx.shown import Shown, can_show, holders, show
from muquant_onnx.from_onnx.views import input_order

_MOVING = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""Views that change no number of a weight."""


def graph_samples(
    source: Path, weights: Sequence[FoundWeight], samples: tuple[Samples, Samples] | None
) -> Iterator[tuple[FoundWeight, InputMoments | None, str]]:
    """Yield `weights` with what is known of their layers' inputs, and else why that is not known.

    Args:
        source: the ONNX file in which `weights` were found.
        weights: of which to collect.
        samples: for the graph's inputs, by name or in order, to fit to and held out; None where
            nothing is known of any weight's inputs.

    Raises:
        InputError: the samples do not fit the graph's inputs, or onnxruntime does not run it.
    """

    def collect(part: list[FoundWeight], own: Samples) -> dict[FoundWeight, Moments | str]:
        known = _collect(source, [weight.name for weight in part], own)
        return {weight: known[weight.name] for weight in part}

    sizes = {weight: weight.channels.moments(weight.shape) for weight in weights}
    return in_parts(sizes, samples, collect)


def _collect(
    source: Path, names: Sequence[str], samples: Samples, unseen: Mapping[str, str] | None = None
) -> dict[str, Moments | str]:
    """Return moments of what the named weights are multiplied by, and where these cannot be known why;
    `unseen` says of some that they cannot."""
    model = read_graph(source).model
    around, reasons = holders(model), dict(unseen or {})
    feeds = Feeds.of(model.graph, samples, source)
    sums: dict[str, MomentSums] = {}
    shown: list[_Shown] = []
    for weight in find_weights(model)[0]:
        if weight.name not in names or weight.name in reasons:
            continue
        why = next(filter(None, (_unseen(weight, use, around) for use in weight.uses)), "")
        if why:
            reasons[weight.name] = why
            continue
        matrix = weight.channels.count(weight.shape), weight.channels.inputs(weight.shape)
        sums[weight.name] = MomentSums(weight.name, matrix)
        for use in weight.uses:
            order = input_order(use.view, use.seen)
            assert use.activation is not None
            assert order is not None
            name = label("muquant", "shown", len(shown))
            value = show(use.activation, use.node, around, name)
            shown.append(_Shown(weight.name, use, value, torch.from_numpy(order)))
    model.graph.outputs.clear()
    model.graph.outputs.extend(each.value.output for each in shown)
    model.graph.sort()
    try:
        reasons |= _run(model, feeds, shown, sums)
    except InputError:
        looped = dict.fromkeys(each.weight for each in shown if each.value.loops)
        if not looped:
            raise
        return _collect(source, names, samples, {**reasons, **dict.fromkeys(looped, _CHANGING)})
    for name, own in sums.items():
        if not own.count:
            reasons.setdefault(name, "the samples do not reach it")
    return {name: reasons[name] if name in reasons else sums[name].moments() for name in names}


_CHANGING = "it is used in a loop that does not show what it is multiplied by: sizes change from step to step"


class _Shown(NamedTuple):
    """What a weight is multiplied by, as an output.

    Attributes:
        weight: its name.
        use: of the weight.
        value: the other operand.
        order: for each input of the weight, as it is stored, which one of its vectors it is.
    """

    weight: str
    use: Use
    value: Shown
    order: Tensor


def _run(
    model: ir.Model, feeds: Feeds, shown: Sequence[_Shown], sums: Mapping[str, MomentSums]
) -> dict[str, str]:
    """Add what `model` outputs to `sums`; return of which weights that cannot be done, and why."""
    generator, reasons = torch.Generator().manual_seed(0), dict[str, str]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        write_graph(model, path, Path(folder))
        for outputs in feeds.run(path) if shown else ():
            for each, output in zip(shown, outputs, strict=True):
                for operand in _steps(torch.from_numpy(output), each.value.loops):
                    found = vectors(each.use, operand, generator)
                    if found is None or (len(found) > 1 and not each.use.in_order):
                        reasons[each.weight] = f"{each.use.kind} shows no vectors that it is multiplied by"
                    else:
                        sums[each.weight].add(found[..., each.order])
    return reasons


def _steps(output: Tensor, loops: int) -> Iterator[Tensor]:
    """Yield the operand at each step of the loops around it; none where it was not computed."""
    if loops:
        for step in output:
            yield from _steps(step, loops - 1)
    elif output.numel():
        yield output


def _unseen(weight: FoundWeight, use: Use, around: Mapping[ir.Graph, ir.Node]) -> str:
    """Return why nobody sees what the weight, as it is stored, is multiplied by; "" where it is seen."""
    kind, changing = use.kind, sorted({node.op_type for node in use.path} - _MOVING)
    if "Gather" in kind or kind == "EmbedLayerNormalization":
        return "its rows are looked up, and multiply nothing"
    if use.index not in OPERANDS.get(kind, {}) or use.activation is None:
        return f"what {kind} multiplies it by is not seen"
    if not can_show(use.node, around):
        return "it is used inside an operator that is neither a branch nor a loop"
    if changing or not use.view.whole:
        return f"{' and '.join(changing)} makes another weight of it"
    if use.channels != weight.channels:
        return "what uses it differs in the axis of output channels"
    if use.channels.count(weight.shape) != use.seen.count(use.view.sizes):
        return f"{kind} sums over parts of its axes"
    if input_order(use.view, use.seen) is None:
        return "Reshape tears its inputs apart"
    return ""
