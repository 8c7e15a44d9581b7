"""A graph under onnxruntime that shows what its weights are multiplied by."""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from muquant.compression.calibration.operators import Draw
from muquant.quantization.sums import MomentSums
from muquant_onnx.format.names import label
from muquant_onnx.from_onnx.find import FoundWeight, Use, find_weights
from muquant_onnx.from_onnx.opened import opened
from muquant_onnx.from_onnx.operands import OPERANDS, vectors
from muquant_onnx.from_onnx.shown import Shown, can_show, holders, show
from muquant_onnx.from_onnx.views import input_order

_MOVING = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""Views that change no number of a weight."""


def seen_weights(
    model: ir.Model, names: Collection[str], unseen: Mapping[str, str]
) -> tuple[dict[str, list["Seen"]], dict[str, str]]:
    """Return the uses of the named weights, in the order of the graph, by name; and why nobody sees what the
    others are multiplied by, of which `unseen` are some."""
    around, reasons = holders(model), dict(unseen)
    found: dict[str, list[Seen]] = {}
    for weight in find_weights(model)[0]:
        if weight.name not in names or weight.name in reasons:
            continue
        why = next(filter(None, (_unseen(weight, use, around) for use in weight.uses)), "")
        if why:
            reasons[weight.name] = why
            continue
        found[weight.name] = []
        for use in weight.uses:
            order = input_order(use.view, use.seen)
            assert order is not None
            found[weight.name].append(Seen(weight, use, order))
    return found, reasons


@dataclass(frozen=True, eq=False)
class Watched:
    """A graph that shows what some weights are multiplied by, and nothing else.

    Attributes:
        session: that runs it.
        shown: what it outputs, each with the uses of weights that it is the other operand of.
    """

    session: ort.InferenceSession
    shown: Sequence[tuple[Shown, Sequence["Seen"]]]

    @classmethod
    def of(cls, model: ir.Model, uses: Iterable["Seen"]) -> "Watched":
        """Watch some uses of weights of `model`, which is changed."""
        around = holders(model)
        shown: dict[tuple[ir.Value, int], tuple[Shown, list[Seen]]] = {}
        for each in uses:
            place = each.activation, id(each.use.node.graph)
            if place not in shown:
                name = label("muquant", "shown", len(shown))
                shown[place] = show(each.activation, each.use.node, around, name), []
            shown[place][1].append(each)
        return cls(_opened(model, [value.output for value, _ in shown.values()]), list(shown.values()))

    @property
    def looped(self) -> list[str]:
        """Weights inside of loops."""
        return [each.weight.name for value, seen in self.shown if value.loops for each in seen]


class Seen(NamedTuple):
    """A weight, and what it is multiplied by.

    Attributes:
        weight: it.
        use: of the weight.
        order: for each input of the weight, as it is stored, which one of its vectors it is.
    """

    weight: FoundWeight
    use: Use
    order: NDArray[np.int64]

    @property
    def activation(self) -> ir.Value:
        """The other operand."""
        assert self.use.activation is not None
        return self.use.activation

    @property
    def sums(self) -> MomentSums:
        """Sums for its vectors, of none yet."""
        weight = self.weight
        return MomentSums(
            weight.name, (weight.channels.count(weight.shape), weight.channels.inputs(weight.shape))
        )

    @property
    def how(self) -> tuple[Hashable, ...]:
        """What its vectors depend on, but for the operand: uses that agree in it share them."""
        use = self.use
        sizes = list(use.view.sizes)
        del sizes[use.seen.axes[-1]]  # its output channels
        attributes = sorted((name, str(each.value)) for name, each in use.node.attributes.items())
        return use.kind, use.index, tuple(sizes), tuple(attributes), self.order.tobytes(), use.in_order

    def vectors(self, operand: Tensor, draw: Draw) -> Tensor | None:
        """What the weight, as it is stored, is multiplied by, drawn from the operand: float32 [blocks, n,
        inputs]; None where it is not multiplied by such."""
        found = vectors(self.use, operand, draw)
        if found is None or (len(found) > 1 and not self.use.in_order):
            return None
        straight = (self.order[1:] > self.order[:-1]).all()
        return found if straight else found[..., torch.from_numpy(self.order)]


def steps_of(output: Tensor, loops: int) -> Iterator[Tensor]:
    """Yield the operand at each step of the loops around it; none where it was not computed."""
    if loops:
        for step in output:
            yield from steps_of(step, loops - 1)
    elif output.numel():
        yield output


def _opened(model: ir.Model, outputs: Sequence[ir.Value]) -> ort.InferenceSession:
    """Open a model with other outputs."""
    model.graph.outputs[:] = outputs
    model.graph.sort()
    return opened(model, "unoptimized")


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
