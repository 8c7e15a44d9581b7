"""Run a graph on samples under onnxruntime, and keep the moments of what its weights are multiplied by."""

import tempfile
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from muquant.base.errors import InputError
from muquant.compression.calibration import Samples, in_parts
from muquant.compression.calibration.batches import BATCH_SIZE
from muquant.compression.calibration.operators import Draw
from muquant.compression.calibration.padding import filled_positions
from muquant.quantization.moments import InputMoments, Moments, MomentSums, VectorSums
from muquant.quantization.threads import one_thread
from muquant_onnx.files.write import write_graph
from muquant_onnx.format.names import label
from muquant_onnx.from_onnx.feeds import Feeds
from muquant_onnx.from_onnx.find import FoundWeight, Use, find_weights
from muquant_onnx.from_onnx.operands import OPERANDS, vectors
from muquant_onnx.from_onnx.read import read_graph
from muquant_onnx.from_onnx.shown import Shown, can_show, holders, show
from muquant_onnx.from_onnx.views import input_order
from muquant_onnx.serving.sessions import load_session

_MOVING = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""Views that change no number of a weight."""
MEMORY = 2**26
"""Bytes of outputs at a time, as far as samples may be run one by one."""


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

    def collect(part: list[FoundWeight], own: Samples, total: int) -> dict[FoundWeight, Moments | str]:
        known = _collect(source, [weight.name for weight in part], own, total)
        return {weight: known[weight.name] for weight in part}

    sizes = {weight: weight.channels.moments(weight.shape) for weight in weights}
    return in_parts(sizes, samples, collect)


def _collect(
    source: Path,
    names: Sequence[str],
    samples: Samples,
    total: int,
    unseen: Mapping[str, str] | None = None,
) -> dict[str, Moments | str]:
    """Return moments of what the named weights are multiplied by, and where these cannot be known why;
    `unseen` says of some that they cannot. There are `total` samples with others."""
    model = read_graph(source).model
    around, reasons = holders(model), dict(unseen or {})
    sums: dict[str, MomentSums] = {}
    shown: dict[tuple[ir.Value, int], tuple[Shown, list[_Seen]]] = {}
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
            place = use.activation, id(use.node.graph)
            if place not in shown:
                name = label("muquant", "shown", len(shown))
                shown[place] = show(use.activation, use.node, around, name), []
            shown[place][1].append(_Seen(weight.name, use, order))
    try:
        reasons |= _run(model, source, samples, total, list(shown.values()), sums)
    except InputError:
        looped = dict.fromkeys(each.weight for value, seen in shown.values() if value.loops for each in seen)
        if not looped:
            raise
        return _collect(source, names, samples, total, {**reasons, **dict.fromkeys(looped, _CHANGING)})
    for name, own in sums.items():
        if not own.count:
            reasons.setdefault(name, "the samples do not reach it")
    return {name: reasons[name] if name in reasons else sums[name].moments() for name in names}


_CHANGING = "it is used in a loop that does not show what it is multiplied by: sizes change from step to step"


class _Seen(NamedTuple):
    """A weight, and what it is multiplied by.

    Attributes:
        weight: its name.
        use: of the weight.
        order: for each input of the weight, as it is stored, which one of its vectors it is.
    """

    weight: str
    use: Use
    order: NDArray[np.int64]

    @property
    def how(self) -> tuple[Hashable, ...]:
        """What its vectors depend on, but for the operand: uses that agree in it share them."""
        use = self.use
        sizes = list(use.view.sizes)
        del sizes[use.seen.axes[-1]]  # its output channels
        attributes = sorted((name, str(each.value)) for name, each in use.node.attributes.items())
        return use.kind, use.index, tuple(sizes), tuple(attributes), self.order.tobytes(), use.in_order


def _run(
    model: ir.Model,
    source: Path,
    samples: Samples,
    total: int,
    shown: Sequence[tuple[Shown, Sequence[_Seen]]],
    sums: Mapping[str, MomentSums],
) -> dict[str, str]:
    """Add what `model` outputs to `sums`; return of which weights that cannot be done, and why."""
    generator, reasons = torch.Generator().manual_seed(0), dict[str, str]()
    if not shown:
        return reasons
    session = _showing(model, [value.output for value, _ in shown])
    feeds = Feeds.of(model.graph, samples, source, 1)
    if len(feeds.batches) > 1:
        alone = replace(feeds, batches=feeds.batches[:1])
        nbytes = sum(output.nbytes for outputs in alone.answers(session) for output in outputs)
        feeds = Feeds.of(model.graph, samples, source, min(max(MEMORY // max(nbytes, 1), 1), BATCH_SIZE))
    for batch, outputs in zip(feeds.batches, feeds.answers(session), strict=True):
        numbers = {name: each for name, each in batch.feed.items() if each.dtype.kind in "biuf"}
        filled = filled_positions((name, torch.from_numpy(each)) for name, each in numbers.items())
        draw = Draw(generator, batch.count / total, filled)
        for (value, seen), output in zip(shown, outputs, strict=True):
            for operand in _steps(torch.from_numpy(output), value.loops):
                found: dict[tuple[Hashable, ...], VectorSums | None] = {}
                for each in seen:
                    how = each.how
                    if how not in found:
                        found[how] = _sums(each, operand, draw)
                    part = found[how]
                    if part is None:
                        reasons[each.weight] = f"{each.use.kind} shows no vectors that it is multiplied by"
                    else:
                        sums[each.weight].add(part)
    return reasons


def _showing(model: ir.Model, outputs: Sequence[ir.Value]) -> ort.InferenceSession:
    """Open a model with other outputs; afterwards it has its own, which tell what its inputs are, again."""
    own = list(model.graph.outputs)
    model.graph.outputs[:] = outputs
    model.graph.sort()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        write_graph(model, path, Path(folder))
        session = load_session(path, "unoptimized")
    model.graph.outputs[:] = own
    return session


def _sums(seen: _Seen, operand: Tensor, draw: Draw) -> VectorSums | None:
    with one_thread():
        found = vectors(seen.use, operand, draw)
        if found is None or (len(found) > 1 and not seen.use.in_order):
            return None
        straight = (seen.order[1:] > seen.order[:-1]).all()
        return VectorSums.of(found if straight else found[..., torch.from_numpy(seen.order)])


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
